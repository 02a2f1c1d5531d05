package datadir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/internal/datadir"
)

// Promise: a data directory has one owner; the error for another says who that is, and what to do.
func TestOneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	l, err := datadir.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = datadir.Take(dir)
	if !errors.Is(err, datadir.ErrInUse) {
		t.Fatalf("taken twice: %v", err)
	}
	for _, want := range []string{dir, fmt.Sprintf("pid %d:", os.Getpid()), "--data"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = datadir.Take(dir); !errors.Is(err, datadir.ErrInUse) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("without a pid: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = datadir.Take(dir); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("it leaves %v, %v", list, err)
	}
}

// Promise: a directory that cannot be written is found when it is taken, not when something is to be written.
func TestUnusable(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := []string{plain, filepath.Join(plain, "data")}
	if os.Getuid() > 0 { // root may do anything, and Windows has no such modes
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		bad = append(bad, closed, filepath.Join(closed, "data"))
	}
	for _, name := range bad {
		if l, err := datadir.Take(name); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "--data") {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}
