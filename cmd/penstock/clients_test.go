//go:build unix

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is the path of a program that the test needs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: install it to try the pipeline with a client that people use", name)
	}
	return path
}

// output runs a command, which must succeed.
func output(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

const intakes = `
max_message: 64KiB
sources:
  web:
    http: { address: "127.0.0.1:0", tokens: [secret], max_body: 1MiB }
  line: { tcp: { address: "127.0.0.1:0" }, frame: lines }
  acked: { tcp: { address: "127.0.0.1:0", acks: true }, frame: lines }
  frames: { tcp: { address: "127.0.0.1:0" }, frame: u32 }
sinks:
  out: { from: [web, line, acked, frames], file: { path: out.txt } }
`

func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	dir := t.TempDir()
	p := run(t, dir, intakes)
	url := "http://" + p.addr("web")
	many := write(t, dir, "many.ndjson", text(numbered(0, 3000)))
	var zip bytes.Buffer
	w := gzip.NewWriter(&zip)
	if _, err := w.Write([]byte(text(numbered(3000, 6000)))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	zipped := write(t, dir, "many.gz", zip.String())
	large := write(t, dir, "large", strings.Repeat("x", 2<<20))
	long := write(t, dir, "long", strings.Repeat("x", 70<<10))
	const ndjson = "Content-Type: application/x-ndjson"
	for _, tt := range []struct {
		name, status, body string
		args               []string
	}{
		{"one message", "200", `{"accepted":1}`, []string{"-d", `{"n":6000}`}},
		{"a batch", "200", `{"accepted":3000}`, []string{"-H", ndjson, "--data-binary", "@" + many}},
		{"gzip", "200", `{"accepted":3000}`, []string{"-H", ndjson, "-H", "Content-Encoding: gzip", "--data-binary", "@" + zipped}},
		{"chunks", "200", `{"accepted":1}`, []string{"-H", "Transfer-Encoding: chunked", "-d", `{"n":6001}`}},
		{"HTTP/1.0", "200", `{"accepted":1}`, []string{"--http1.0", "-d", `{"n":6002}`}},
		{"HTTP/2", "200", `{"accepted":1}`, []string{"--http2-prior-knowledge", "-d", `{"n":6003}`}},
		{"nothing", "200", `{"accepted":0}`, []string{"-d", ""}},
		{"a large body", "413", `"accepted":0`, []string{"--data-binary", "@" + large}},
		{"a large message", "413", "max_message", []string{"--data-binary", "@" + long}},
		{"no gzip", "400", "gzip", []string{"-H", "Content-Encoding: gzip", "-d", "x"}},
		{"a strange encoding", "415", "gzip", []string{"-H", "Content-Encoding: br", "-d", "x"}},
		{"GET", "405", "POST", nil},
		{"a wrong token", "401", "oken", []string{"-H", "Authorization: Bearer wrong", "-d", "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-sS", "-m", "15", "-w", "%{http_code}", "-H", "Expect:", url}, tt.args...)
			if tt.status != "401" {
				args = append(args, "-H", "Authorization: Bearer secret")
			}
			out := output(t, "", curl, args...)
			body, status := out[:len(out)-3], out[len(out)-3:]
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("%s %s, want %s with %s", status, body, tt.status, tt.body)
			}
		})
	}
	if s := p.stop(); s.Accepted != 6004 || s.Settled != 6004 || s.Bad == 0 {
		t.Errorf("accepted %d, settled %d, bad %d", s.Accepted, s.Settled, s.Bad)
	}
	if err := compare(linesOf(t, filepath.Join(dir, "out.txt")), numbered(0, 6004), 1); err != nil {
		t.Error(err)
	}
}

// Netcat, or bash where there is none.
func TestNetcat(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir, intakes)
	host, port, _ := strings.Cut(p.addr("acked"), ":")
	if nc, err := exec.LookPath("nc"); err == nil {
		if answers := output(t, text(numbered(0, 100)), nc, "-N", host, port); !strings.HasSuffix(answers, "100\n") {
			t.Errorf("answers %q", answers)
		}
	} else {
		t.Log("nc is not installed: bash does what it would do")
		script := fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; cat >&3; while read -r n <&3; do echo $n; [ $n = 100 ] && break; done", host, port)
		if answers := output(t, text(numbered(0, 100)), tool(t, "bash"), "-c", script); !strings.HasSuffix(answers, "100\n") {
			t.Errorf("answers %q", answers)
		}
	}
	host, port, _ = strings.Cut(p.addr("line"), ":")
	output(t, text(numbered(100, 200)), tool(t, "bash"), "-c", fmt.Sprintf("cat > /dev/tcp/%s/%s", host, port))
	eventually(t, "200 lines", func() bool { return len(linesOf(t, filepath.Join(dir, "out.txt"))) == 200 })
	if s := p.stop(); s.Settled != 200 {
		t.Errorf("settled %d", s.Settled)
	}
}

// HTTP/1.1 pipelining: requests that are sent without waiting are answered in their order.
func TestPipelining(t *testing.T) {
	p := run(t, t.TempDir(), intakes)
	c := dial(t, p.addr("web"))
	const n = 200
	var requests strings.Builder
	for i := range n {
		fmt.Fprintf(&requests, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Type: application/x-ndjson\r\n"+
			"Content-Length: %d\r\n\r\n%s", 2*(i%5), strings.Repeat("a\n", i%5))
	}
	go func() {
		_, _ = io.WriteString(c, requests.String()) // an error shows in the answers
	}()
	r := bufio.NewReader(c)
	for i := range n {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if want := fmt.Sprintf(`{"accepted":%d}`, i%5); err != nil || answer.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != want {
			t.Fatalf("%d: %s %s, %v; want %s", i, answer.Status, body, err, want)
		}
	}
	c.Close()
	p.stop()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// A client that sends byte by byte, one that closes its sending side, one that is gone within a frame, and one that talks nonsense: each
// gets what it deserves, and the others notice nothing.
func TestDifficultClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, dir, intakes)
	slow := dial(t, p.addr("acked"))
	half := dial(t, p.addr("acked"))
	gone := dial(t, p.addr("frames"))
	web := dial(t, p.addr("web"))
	send(t, gone, "\x00\x00\x00\x03one\x00\x00\x00\x10part of a")
	if err := gone.(*net.TCPConn).SetLinger(0); err != nil { // as if it were killed: a reset
		t.Fatal(err)
	}
	gone.Close()
	send(t, half, "two\nthree") // the last line has no end but the connection's
	if err := half.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answers, err := io.ReadAll(half)
	if err != nil || !strings.HasSuffix(string(answers), "2\n") {
		t.Errorf("half closed: answers %q, %v", answers, err)
	}
	for _, b := range "four\n" {
		send(t, slow, string(b))
	}
	if answer, err := bufio.NewReader(slow).ReadString('\n'); err != nil || answer != "1\n" {
		t.Errorf("slow: answer %q, %v", answer, err)
	}
	nonsense := dial(t, p.addr("frames"))
	send(t, nonsense, "GET / HTTP/1.1\r\n\r\n")
	answer, err := io.ReadAll(nonsense)
	if err != nil || !strings.Contains(string(answer), "error: ") {
		t.Errorf("nonsense: answer %q, %v", answer, err)
	}
	send(t, web, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 4\r\n\r\nfive")
	if err := web.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(web), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("half closed by HTTP: %v, %v", response, err)
	}
	_ = response.Body.Close()
	if s := p.stop(); s.Settled < 4 || s.Settled != s.Accepted || s.Bad == 0 { // "one" may have been overtaken by the reset
		t.Errorf("%+v", s)
	}
	got := linesOf(t, filepath.Join(dir, "out.txt"))
	delete(got, "one")
	if err := compare(got, []string{"two", "three", "four", "five"}, 1); err != nil {
		t.Error(err)
	}
}

// A unix socket is there with its mode while the pipeline runs, and gone after it.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	p := run(t, dir, "sources:\n  in: { unix: { path: s, mode: \"0660\", acks: true } }\nsinks:\n  out: { from: in, file: { path: out.txt } }\n")
	p.await("msg=listening")
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info, err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, c, "a\n")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "1\n" {
		t.Errorf("answer %q, %v", answer, err)
	}
	p.stop()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket file is still there")
	}
}
