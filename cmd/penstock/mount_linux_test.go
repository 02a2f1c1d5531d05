package main

import (
	"fmt"
	"os/exec"
)

func mount(dir string, size int) ([]byte, error) {
	return exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", dir).CombinedOutput()
}

func unmount(dir string) ([]byte, error) { return exec.Command("umount", dir).CombinedOutput() }
