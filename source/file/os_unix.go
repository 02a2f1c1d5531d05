//go:build unix

package file

import (
	"fmt"
	"os"
	"syscall"
)

// identify is the identity of an open file.
func identify(f *os.File) (identity, error) {
	info, err := f.Stat()
	if err != nil {
		return identity{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, fmt.Errorf("%s: the system does not say which inode it has", f.Name())
	}
	return identity{uint64(st.Dev), uint64(st.Ino)}, nil //nolint:unconvert // Dev is an int32 on darwin
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
