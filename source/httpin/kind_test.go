package httpin

import (
	"context"
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/source"
	"github.com/penstock-dev/penstock/source/sourcetest"
)

func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Settings)
		field  string // "" if nothing is wrong
	}{
		{"defaults", func(*Settings) {}, ""},
		{"IPv6", func(s *Settings) { s.Address = "[::1]:80" }, ""},
		{"localhost", func(s *Settings) { s.Address = "localhost:80" }, ""},
		{"no port", func(s *Settings) { s.Address = "127.0.0.1" }, "address"},
		{"no number", func(s *Settings) { s.Address = "127.0.0.1:x" }, "address"},
		{"large number", func(s *Settings) { s.Address = "127.0.0.1:65536" }, "address"},
		{"nothing", func(s *Settings) { s.Address = "" }, "address"},
		{"all addresses", func(s *Settings) { s.Address = ":80" }, "address"},
		{"all addresses, insecure", func(s *Settings) { s.Address, s.Insecure = ":80", true }, ""},
		{"another address", func(s *Settings) { s.Address = "10.0.0.1:80" }, "address"},
		{"a name", func(s *Settings) { s.Address = "example.com:80" }, "address"},
		{"tls only", func(s *Settings) { s.Address, s.TLS = ":80", &kind.ServerTLS{} }, "address"},
		{"tokens only", func(s *Settings) { s.Address, s.Tokens = ":80", []kind.Secret{"x"} }, "address"},
		{"tls and tokens", func(s *Settings) { s.Address, s.TLS, s.Tokens = ":80", &kind.ServerTLS{}, []kind.Secret{"x"} }, ""},
		{"tls and client_ca", func(s *Settings) { s.Address, s.TLS = ":80", &kind.ServerTLS{ClientCA: "x"} }, ""},
		{"path", func(s *Settings) { s.Path = "x" }, "path"},
		{"query", func(s *Settings) { s.Path = "/?x" }, "path"},
		{"empty token", func(s *Settings) { s.Tokens = []kind.Secret{"x", ""} }, "tokens[1]"},
		{"long token", func(s *Settings) { s.Tokens = []kind.Secret{kind.Secret(strings.Repeat("x", 1025))} }, "tokens[0]"},
		{"header", func(s *Settings) { s.Headers = []string{"a b"} }, "headers[0]"},
		{"authorization", func(s *Settings) { s.Headers = []string{"x", "Authorization"} }, "headers[1]"},
		{"many headers", func(s *Settings) { s.Headers = slices.Repeat([]string{"x"}, 65) }, "headers"},
		{"settle_timeout", func(s *Settings) { s.SettleTimeout = 0 }, "settle_timeout"},
		{"body_timeout", func(s *Settings) { s.BodyTimeout = -1 }, "body_timeout"},
		{"max_body", func(s *Settings) { s.MaxBody = 0 }, "max_body"},
		{"max_requests", func(s *Settings) { s.MaxRequests = 0 }, "max_requests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Defaults()
			s.Address = "127.0.0.1:80"
			tt.change(&s)
			var fields []string
			for _, p := range s.Check() {
				fields = append(fields, p.Field)
				if len(p.Message) < 10 {
					t.Errorf("the message %q", p.Message)
				}
			}
			if got := strings.Join(fields, " "); got != tt.field {
				t.Errorf("wrong are %q, want %q", got, tt.field)
			}
			if _, err := New(s, kind.Env{}); (err != nil) != (tt.field != "") {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	for address, want := range map[string][]string{"127.0.0.1:80": {"tcp 127.0.0.1:80"}, "127.0.0.1:0": nil, "x": nil} {
		if got := (Settings{Address: address}).Claims(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s claims %q, want %q", address, got, want)
		}
	}
}

func TestKind(t *testing.T) {
	k := Kind()
	s := Defaults()
	s.Address = "127.0.0.1:0"
	for _, tt := range []struct {
		env kind.Env
		ok  bool
	}{
		{kind.Env{}, true},
		{kind.Env{Frame: "lines", Delimiter: "\n\n"}, true},
		{kind.Env{Frame: "u32"}, true},
		{kind.Env{Frame: "u32", Delimiter: "x"}, false},
		{kind.Env{Delimiter: "x"}, false},
		{kind.Env{Frame: "words"}, false},
	} {
		src, err := k.NewSource(s, tt.env)
		if (err == nil) != tt.ok || (src == nil) == tt.ok {
			t.Errorf("%+v: %v, %v", tt.env, src, err)
		}
		if src != nil { // one that has never run
			src.Settle(source.Settlement{Receipts: []uint64{1, 2}})
			if err := src.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestListenFails(t *testing.T) {
	s := Defaults()
	s.Address = "127.0.0.1:0"
	refused := errors.New("refused")
	src, err := New(s, kind.Env{Listen: func(context.Context, string, string) (net.Listener, error) { return nil, refused }})
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
	defer in.Close()
	if err := src.Run(t.Context(), in); !errors.Is(err, refused) || !strings.Contains(err.Error(), s.Address) {
		t.Errorf("Run: %v", err)
	}
	if src.Requests() != 0 {
		t.Error("requests are under way")
	}
}

// broken is a listener that fails for good.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errors.New("no more") }

func TestAcceptFails(t *testing.T) {
	s := Defaults()
	s.Address = "127.0.0.1:0"
	src, err := New(s, kind.Env{Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
		ln, err := new(net.ListenConfig).Listen(ctx, network, address)
		return broken{ln}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	in := sourcetest.NewIntake(t, sourcetest.IntakeConfig{})
	defer in.Close()
	if err := src.Run(t.Context(), in); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("Run: %v", err)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNumbersRunOut(t *testing.T) {
	l := newLedger()
	l.next = requestMask
	q := &request{}
	q.count.done = make(chan struct{}, 1)
	l.begin(q)
	q.receipt += messageMask - 1
	first := q.receipt
	l.renumber(q)
	q.count.add(2)
	q.count.finish()
	l.settle([]uint64{first, q.receipt, 12345 << messageBits}, source.Settled)
	if accepted, settled, _ := q.count.tally(); accepted != 2 || settled != 2 {
		t.Errorf("%d accepted, %d settled", accepted, settled)
	}
	l.end(q)
	if len(l.open) != 0 {
		t.Errorf("the ledger holds %d requests", len(l.open))
	}
}
