//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/penstock-dev/penstock/api"
)

// producers send numbered messages to a pipeline, over one TCP connection with acks and by HTTP, until they are stopped.
type producers struct {
	t       *testing.T
	stopped chan struct{}
	done    sync.WaitGroup
	dialled atomic.Int64 // connections of the HTTP client
	settled atomic.Int64
	tcp     []string // sent and settled
	http    []string
}

func produce(t *testing.T, tcp, http string) *producers {
	t.Helper()
	p := &producers{t: t, stopped: make(chan struct{})}
	c, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	p.done.Go(func() { p.byTCP(c) })
	p.done.Go(func() { p.byHTTP("http://" + http + "/") })
	return p
}

func (p *producers) stop() {
	close(p.stopped)
	p.done.Wait()
}

func (p *producers) over() bool {
	select {
	case <-p.stopped:
		return true
	default:
		return false
	}
}

// byTCP keeps at most a hundred messages unsettled.
func (p *producers) byTCP(c net.Conn) {
	defer c.Close()
	answers := bufio.NewScanner(c)
	settled := 0
	read := func(up to) bool {
		for settled < int(up) {
			if !answers.Scan() {
				p.t.Errorf("the connection has ended after %d of %d messages: %v", settled, len(p.tcp), answers.Err())
				return false
			}
			n, err := strconv.Atoi(answers.Text())
			if err != nil || n < settled || n > len(p.tcp) {
				p.t.Errorf("acknowledged %q after %d, of %d", answers.Text(), settled, len(p.tcp))
				return false
			}
			p.settled.Add(int64(n - settled))
			settled = n
		}
		return true
	}
	for !p.over() {
		lines := make([]string, 10)
		for i := range lines {
			lines[i] = fmt.Sprintf(`{"n":%d,"by":"tcp"}`, len(p.tcp)+i)
		}
		p.tcp = append(p.tcp, lines...)
		if _, err := c.Write([]byte(text(lines))); err != nil {
			p.t.Errorf("tcp: %v", err)
			return
		}
		if !read(to(len(p.tcp) - 100)) {
			return
		}
	}
	read(to(len(p.tcp)))
}

type to int

// byHTTP sends one request after another, each of which must be answered 200, over one connection.
func (p *producers) byHTTP(url string) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: patience, Transport: transport}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			p.dialled.Add(1)
		}
	}})
	for !p.over() {
		lines := make([]string, 20)
		for i := range lines {
			lines[i] = fmt.Sprintf(`{"n":%d,"by":"http"}`, len(p.http)+i)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(text(lines)))
		if err != nil {
			p.t.Error(err)
			return
		}
		request.Header.Set("Content-Type", "application/x-ndjson")
		answer, err := client.Do(request)
		if err != nil {
			p.t.Errorf("http: %v", err)
			return
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			p.t.Errorf("http: %s, %s, %v", answer.Status, body, err)
			return
		}
		p.http = append(p.http, lines...)
		p.settled.Add(int64(len(lines)))
	}
}

// some waits until so many more messages have settled.
func (p *producers) some(n int64) {
	p.t.Helper()
	want := p.settled.Load() + n
	eventually(p.t, "messages settle", func() bool { return p.settled.Load() >= want || p.t.Failed() })
	if p.t.Failed() {
		p.t.FailNow()
	}
}

// stage is a pipeline's file in one of several versions.
type stage struct {
	where string // of the filter
	sinks string // further sinks
	extra string // anything
}

func (s stage) text(url string) string {
	return fmt.Sprintf(`
sources:
  byline: { tcp: { address: "127.0.0.1:0", acks: true }, frame: lines }
  byrequest: { http: { address: "127.0.0.1:0" } }
plugins:
  all: { filter: { where: %q }, from: [byline, byrequest], emits: kept }
sinks:
  web: { from: kept, http: { url: %q, concurrency: 2 } }
%s
%s`, s.where, url, s.sinks, s.extra)
}

// Promise: a reload under load loses nothing, duplicates nothing and drops no connection; a bad file changes nothing and says why.
func TestReloadUnderLoad(t *testing.T) {
	for _, trigger := range []string{"SIGHUP", "watch"} {
		t.Run(trigger, func(t *testing.T) {
			if trigger == "watch" && testing.Short() {
				t.Skip("waits for --watch to look")
			}
			testReload(t, trigger)
		})
	}
}

func testReload(t *testing.T, trigger string) {
	in := newInbox()
	server := httptest.NewServer(in)
	defer server.Close()
	dir := t.TempDir()
	var args []string
	if trigger == "watch" {
		args = []string{"--watch"}
	}
	p := run(t, dir, stage{where: "msg.n >= 0"}.text(server.URL), args...)
	reload := func(s stage) {
		write(t, dir, "penstock.yaml", s.text(server.URL))
		if trigger == "SIGHUP" {
			p.signal(syscall.SIGHUP)
		}
	}
	load := produce(t, p.addr("byline"), p.addr("byrequest"))
	p.url("/") // it runs
	load.some(500)

	other := "  other: { from: kept, file: { path: other.ndjson } }"
	reload(stage{where: "msg.n >= 0", sinks: other})
	line := p.awaitNth(1, `msg="loaded again"`, "trigger="+trigger)
	if !strings.Contains(line, "sink other") || !strings.Contains(line, "untouched=4") {
		t.Errorf("the log says %s", line)
	}
	load.some(500)

	reload(stage{where: "msg.n > -1", sinks: other})
	if line = p.awaitNth(2, `msg="loaded again"`); !strings.Contains(line, `changed="[plugin all]"`) {
		t.Errorf("the log says %s", line)
	}
	load.some(500)

	reload(stage{where: "msg.n > -1", sinks: other, extra: "plugin: {}"})
	if line = p.await("nothing has changed"); !strings.Contains(line, "penstock.yaml:10") || !strings.Contains(line, "plugins") {
		t.Errorf("the log says %s", line)
	}
	load.some(500)

	reload(stage{where: "msg.n > -2"})
	if line = p.awaitNth(3, `msg="loaded again"`); !strings.Contains(line, `removed="[sink other]"`) {
		t.Errorf("the log says %s", line)
	}
	load.some(500)
	load.stop()

	checkRecords(t, p, trigger)
	if n := load.dialled.Load(); n != 1 {
		t.Errorf("%d connections for HTTP, want one", n)
	}
	all := slices.Concat(load.tcp, load.http)
	if s := p.stop(); int(s.Accepted) != len(all) || s.Settled != s.Accepted || s.Dead+s.Dropped+s.Bad+s.Returned != 0 {
		t.Errorf("sent %d; %+v", len(all), s)
	}
	in.check(t, all, 1)
	for line, n := range linesOf(t, dir+"/other.ndjson") {
		if n != 1 {
			t.Errorf("the sink that was there for a while has %s %d times", line, n)
		}
	}
}

// checkRecords looks at what GET /reload says, the latest first.
func checkRecords(t *testing.T, p *proc, trigger string) {
	t.Helper()
	_, body := get(t, p.url("/reload"))
	var records []api.Record
	if err := json.Unmarshal([]byte(body), &records); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if len(records) != 4 {
		t.Fatalf("records: %s", body)
	}
	for i, r := range records {
		if r.Trigger != trigger || (r.Error != "") != (i == 1) {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	if r := records[1]; !strings.Contains(r.Error, "penstock.yaml:10") || len(r.Changed)+len(r.Added)+len(r.Removed) != 0 {
		t.Errorf("record of the bad file: %+v", r)
	}
	if r := records[3]; len(r.Added) != 1 || len(r.Untouched) != 4 {
		t.Errorf("record of the first: %+v", r)
	}
}

// Promise: reloads that come one after the other, and change plugins, sinks and streams under load, lose nothing and duplicate nothing.
func TestReloadAgainAndAgain(t *testing.T) {
	in := newInbox()
	server := httptest.NewServer(in)
	defer server.Close()
	dir := t.TempDir()
	const sources = `
sources:
  byline: { tcp: { address: "127.0.0.1:0", acks: true }, frame: lines }
  byrequest: { http: { address: "127.0.0.1:0" } }
`
	versions := []string{
		// one filter; its condition changes, then the sink, then how it is run
		"plugins:\n  all: { filter: { where: msg.n >= 0 }, from: [byline, byrequest], emits: kept }\n" +
			"sinks:\n  web: { from: kept, http: { url: URL } }\n",
		"plugins:\n  all: { filter: { where: msg.n > -1 }, from: [byline, byrequest], emits: kept }\n" +
			"sinks:\n  web: { from: kept, http: { url: URL } }\n",
		"plugins:\n  all: { filter: { where: msg.n > -1 }, from: [byline, byrequest], emits: kept }\n" +
			"sinks:\n  web: { from: kept, http: { url: URL, batch: { messages: 7 } } }\n",
		"plugins:\n  all: { filter: { where: msg.n > -1 }, from: [byline, byrequest], emits: kept, mode: pool, workers: 3 }\n" +
			"sinks:\n  web: { from: kept, http: { url: URL, batch: { messages: 7 } } }\n",
		// another takes its place, with a stream of its own
		"plugins:\n  every: { filter: { where: msg.n > -1 }, from: [byline, byrequest], emits: rest }\n" +
			"sinks:\n  web: { from: rest, http: { url: URL, batch: { messages: 7 } } }\n",
		// one for each source, one behind the other
		"plugins:\n  every: { filter: { where: msg.n > -1 }, from: byline, emits: rest }\n" +
			"  other: { filter: { where: msg.n >= 0 }, from: byrequest, emits: more }\n" +
			"  last: { filter: { where: msg.n >= 0 }, from: [rest, more], emits: end }\n" +
			"sinks:\n  to: { from: end, http: { url: URL, concurrency: 1 } }\n",
		// none
		"sinks:\n  to: { from: [byline, byrequest], http: { url: URL, concurrency: 1 } }\n",
	}
	file := func(i int) string {
		return sources + strings.ReplaceAll(versions[i%len(versions)], "URL", server.URL)
	}
	p := run(t, dir, file(0))
	load := produce(t, p.addr("byline"), p.addr("byrequest"))
	url := p.url("/reload")
	for i := 1; i <= 4*len(versions); i++ {
		write(t, dir, "penstock.yaml", file(i))
		answer, err := http.Post(url, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || strings.Contains(string(body), `"failed"`) {
			t.Errorf("version %d: %s %s, %v", i, answer.Status, body, err)
		}
		load.some(50)
	}
	http.DefaultClient.CloseIdleConnections()
	load.stop()
	all := slices.Concat(load.tcp, load.http)
	if s := p.stop(); int(s.Accepted) != len(all) || s.Settled != s.Accepted || s.Retried+s.Dead+s.Dropped+s.Bad+s.Returned != 0 {
		t.Errorf("sent %d; %+v", len(all), s)
	}
	if n := load.dialled.Load(); n != 1 {
		t.Errorf("%d connections for HTTP, want one", n)
	}
	in.check(t, all, 1)
}

// Promise: a source whose settings change keeps its port bound: no connection is refused, and no message is lost.
func TestReloadOfASource(t *testing.T) {
	in := newInbox()
	server := httptest.NewServer(in)
	defer server.Close()
	dir := t.TempDir()
	address := freeAddress(t)
	file := func(most int) string {
		return fmt.Sprintf(`
sources:
  in: { http: { address: %q, max_requests: %d } }
sinks:
  web: { from: in, http: { url: %q } }
`, address, most, server.URL)
	}
	p := run(t, dir, file(100))
	p.addr("in")
	p.url("/") // it runs
	var sent []string
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			line := fmt.Sprintf(`{"n":%d}`, i)
			for status := 0; status != http.StatusOK; {
				answer, err := client.Post("http://"+address, "application/json", strings.NewReader(line))
				if err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				_ = answer.Body.Close()
				if status = answer.StatusCode; status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Errorf("status %d", status)
					return
				}
			}
			sent = append(sent, line)
		}
	}()
	for i := range 5 {
		in.await(t, (i+1)*20)
		write(t, dir, "penstock.yaml", file(101+i))
		p.signal(syscall.SIGHUP)
		p.awaitNth(i+1, `msg="loaded again"`, `changed="[source in]"`)
	}
	close(stop)
	<-done
	p.stop()
	in.check(t, sent, 1)
}

// POST /reload answers with the record, or with what is wrong.
func TestReloadByRequest(t *testing.T) {
	dir := t.TempDir()
	file := "sources:\n  in: { tcp: { address: \"127.0.0.1:0\" } }\nsinks:\n  out: { from: in, file: { path: out.txt } }\n"
	p := run(t, dir, file)
	post := func() (int, string) {
		answer, err := http.Post(p.url("/reload"), "", bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	status, body := post()
	compact := strings.Join(strings.Fields(body), "")
	if status != http.StatusOK || !strings.Contains(compact, `"untouched":["sourcein","sinkout"]`) {
		t.Errorf("%d %s", status, body)
	}
	p.await(`msg="loaded again"`, "trigger=api", "untouched=2")
	for name, bad := range map[string]string{"penstock.yaml": file + "memory: 1GiB\n", "nothing": "", "yaml": "sources: [\n"} {
		write(t, dir, "penstock.yaml", bad)
		status, body := post()
		if status != http.StatusUnprocessableEntity || !strings.Contains(body, "nothing has been changed") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if err := os.Remove(dir + "/penstock.yaml"); err != nil {
		t.Fatal(err)
	}
	if status, body := post(); status != http.StatusUnprocessableEntity || !strings.Contains(body, "no such file") {
		t.Errorf("%d %s", status, body)
	}
	p.stop()
}
