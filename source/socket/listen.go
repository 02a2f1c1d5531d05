package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// probeTime is how long whoever listens at a socket file may take to answer.
const probeTime = 2 * time.Second

// listen opens the listener.
func (s *Source) listen(ctx context.Context) (net.Listener, error) {
	open := s.cfg.Listen
	if open == nil {
		open = new(net.ListenConfig).Listen
	}
	ln, err := open(ctx, s.cfg.Network, s.cfg.Address)
	if s.cfg.Network != "unix" {
		return ln, err
	}
	// The listener is asked for first: it may be one that another source hands on, and then the file answers and must stay.
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(ctx, s.cfg.Address); err != nil {
			return nil, err
		}
		ln, err = open(ctx, s.cfg.Network, s.cfg.Address)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.cfg.Address, s.cfg.Mode.Perm()); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("permissions of the socket file: %w", err)
	}
	return ln, nil
}

// removeStale removes a socket file that nobody listens at.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there, and is no socket (%v): give another path, or remove it", path, info.Mode())
	}
	d := net.Dialer{Timeout: probeTime}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("somebody listens at %s already: end that process, or give another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is in use, and does not say by whom: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a socket file that nobody listens at: %w", err)
	}
	return nil
}
