//go:build !unix

package socket

import "net"

// newFeed makes the feed of conn.
func newFeed(conn net.Conn) feed { return &bufferedFeed{conn: conn} }
