package kind

import (
	"net"
	"net/netip"
	"strings"
)

// Loopback says whether a host, as an address or a URL has it, is always this machine.
func Loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Host is the host of an address or of a header Host, with or without a port.
func Host(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
}

// Exposed is what is missing before it is safe to listen at an address, host:port: "tls" and "a token (or tls.client_ca)". It is empty if
// nothing is, as at an address that only this machine can reach.
func Exposed(address string, tls *ServerTLS, token bool) string {
	const known = "a token (or tls.client_ca)"
	authenticated := token || tls != nil && tls.ClientCA != ""
	switch {
	case Loopback(Host(address)), tls != nil && authenticated:
		return ""
	case authenticated:
		return "tls"
	case tls != nil:
		return known
	}
	return "tls and " + known
}
