package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/internal/yamltree"
)

// maxFiles bounds the files of a directory.
const maxFiles = 256

// file is the text of one file.
type file struct {
	name string
	text []byte
}

// isTest says whether a file holds tests of a pipeline instead of a part of it.
func isTest(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, filepath.Ext(name)), "_test")
}

// paths is the files that a path stands for: itself, or all files of a directory in the order of their names.
func paths(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer dir.Close()
	var out []string
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			ext := filepath.Ext(name)
			if (ext != ".yaml" && ext != ".yml") || isTest(name) || strings.HasPrefix(name, ".") {
				continue
			}
			if out = append(out, filepath.Join(path, name)); len(out) > maxFiles {
				return nil, fmt.Errorf("config: %s has more than %d files that end in .yaml or .yml: give a directory of its own", path, maxFiles)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("config: %s has no file that ends in .yaml or .yml (a name that ends in _test.yaml is a test): "+
			"give the path of a file, or add one", path)
	}
	slices.Sort(out)
	return out, nil
}

// readFile reads a file that is not too large.
func readFile(path string) ([]byte, error) {
	text, err := yamltree.ReadFile(path, advice())
	var bad *Error
	if err == nil || errors.As(err, &bad) {
		return text, err
	}
	return nil, fmt.Errorf("config: %w", err)
}

// advice is what is said of files that cannot be those of a pipeline.
func advice() yamltree.Advice {
	return yamltree.Advice{
		TooLarge: "is it the file of a pipeline? A large pipeline can be parted into several files of one directory",
		Empty:    "it needs sources, and plugins or sinks that read them; `penstock new pipeline` writes an example",
		Second:   "put one pipeline in a file, without lines of ---",
	}
}
