package sinktest

import (
	"bytes"
	"slices"
	"sync"
)

func exams() []exam {
	return []exam{
		{"everything arrives once and in order", nil, examOrder},
		{"a message is done only after it has arrived", nil, examDoneAfter},
		{"a part of a batch", nil, examPick},
		{"lent bytes are not used after done", nil, examLent},
		{"empty and large payloads", nil, examSizes},
		{"any bytes", isBinary, examBinary},
		{"keys and headers beside the payload", nil, examMeta},
		{"Flush and Close with nothing given", nil, examNothing},
		{"Close writes what is waiting", nil, examClose},
		{"a failed Write fails only what is not done", canBreak, examWriteFails},
		{"a failed Flush fails only what is not done", canBreak, examFlushFails},
		{"Close writes what is waiting or fails it", canBreak, examCloseFails},
		{"what failed can be tried again", canBreak, examRetry},
		{"a sink opened again adds to what is there", keeps, examReopen},
		{"others read the batch at the same time", nil, examReaders},
	}
}

func examOrder(r *rig) {
	var want []Message
	for _, n := range []int{1, 16, 64, 3, 256, 1} {
		msgs := texts(len(want), n, 100)
		r.must("Write", r.write(r.lend(msgs, nil)))
		want = append(want, msgs...)
		if n == 64 || n == 256 {
			r.must("Flush", r.flush())
			r.arrived(want)
		}
	}
	r.must("Flush", r.flush())
	r.arrived(want)
	r.noFailures()
	r.must("Close", r.close())
	r.arrived(want)
}

func (r *rig) noFailures() {
	r.Helper()
	if _, failed := r.split(); len(failed) > 0 {
		r.Errorf("%d messages failed, though Write and Flush returned nil", len(failed))
	}
}

func examDoneAfter(r *rig) {
	r.onDone = func(m *lentMsg) {
		got, err := r.fx.Read()
		if err != nil {
			r.Errorf("fixture: Read: %v", err)
		}
		if !slices.ContainsFunc(got, func(g Message) bool { return bytes.Equal(g.Payload, m.Payload) }) {
			r.Errorf("message %s was done before it arrived", show(m.Payload))
		}
	}
	for i := range 8 {
		r.must("Write", r.write(r.lend(texts(16*i, 16, 1+i*i*200), nil)))
		if i%3 == 2 {
			r.must("Flush", r.flush())
		}
	}
	r.must("Flush", r.flush())
}

func examPick(r *rig) {
	msgs := texts(0, 32, 50)
	var want []Message
	for _, pick := range [][]uint32{{0}, {31}, {1, 2, 3, 9, 30}, {4, 6, 8}} {
		r.must("Write", r.write(r.lend(msgs, pick)))
		for _, i := range pick {
			want = append(want, msgs[i])
		}
	}
	r.must("Write of an empty batch", r.write(r.lend(msgs, []uint32{})))
	r.must("Flush", r.flush())
	r.arrived(want)
}

// examLent mixes sizes, so that a sink with a buffer takes all its ways, and does more batches than would be kept by accident.
func examLent(r *rig) {
	var want []Message
	for i := range 12 {
		var msgs []Message
		for j, size := range []int{10, 70_000, 10, 10, 300, 20_000, 5_000, 40_000, 7} {
			msgs = append(msgs, text(i*100+j, size))
		}
		r.must("Write", r.write(r.lend(msgs, nil)))
		want = append(want, msgs...)
		if i%4 == 3 {
			r.must("Flush", r.flush())
		}
	}
	r.arrived(want)
}

func examSizes(r *rig) {
	want := []Message{{}, text(1, 1), {}, text(2, 1<<20), {}, {}, text(3, 4095), text(4, 4096), text(5, 65535), text(6, 65536), {}}
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Flush", r.flush())
	r.arrived(want)
}

func examBinary(r *rig) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	want := []Message{{Payload: all}}
	for _, p := range []string{"\n", "\x00", "a\r\nb\n\n", "\xff\xfe"} {
		want = append(want, Message{Payload: []byte(p)})
	}
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Flush", r.flush())
	r.arrived(want)
}

func examMeta(r *rig) {
	want := texts(0, 8, 40)
	for i := range want {
		if i%2 == 0 {
			want[i].Key = []byte("key-" + string(want[i].Payload[:6]))
		}
		for j := range i % 4 {
			want[i].Headers = append(want[i].Headers, Header{Name: "h" + string(rune('0'+j)), Value: want[i].Payload[:j*3]})
		}
	}
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Flush", r.flush())
	r.arrived(want)
}

func examNothing(r *rig) {
	r.must("Flush", r.flush())
	r.must("Flush again", r.flush())
	want := texts(0, 2, 30)
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Flush", r.flush())
	r.must("Flush with nothing new", r.flush())
	r.arrived(want)
	r.must("Close", r.close())
	r.arrived(want)
}

func examClose(r *rig) {
	want := texts(0, 20, 80)
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Close", r.close())
	r.noFailures()
	r.arrived(want)
}

// consistent holds after failures: what is done without error has arrived, what has failed has not where that is promised.
func (r *rig) consistent() {
	r.Helper()
	good, failed := r.split()
	got := map[string]int{}
	for _, m := range r.read() {
		got[string(m.Payload)]++
	}
	for _, m := range good {
		if got[string(m.Payload)] == 0 {
			r.Errorf("message %s was done without error, but has not arrived", show(m.Payload))
		}
	}
	for _, m := range failed {
		if r.fx.Promises.Exact && got[string(m.Payload)] > 0 {
			r.Errorf("message %s failed, but has arrived: trying again would make a duplicate", show(m.Payload))
		}
	}
	for _, m := range append(good, failed...) {
		delete(got, string(m.Payload))
	}
	for p := range got {
		r.Errorf("the destination holds %s, which is no message that was written (a torn one?)", show([]byte(p)))
	}
}

// failing writes batches of n new messages until something fails.
func (r *rig) failing(n int) {
	r.Helper()
	_, before := r.split()
	for i := range 50 {
		r.next += n
		if r.write(r.lend(texts(r.next, n, 200), nil)) != nil {
			return
		}
		if i%2 == 1 && r.flush() != nil {
			return
		}
		if _, failed := r.split(); i%2 == 1 && len(failed) > len(before) {
			return // by a goroutine of the sink
		}
	}
	r.Fatalf("the destination refuses everything, but no Write, Flush or message failed")
}

func examWriteFails(r *rig) {
	r.must("Write", r.write(r.lend(texts(0, 5, 100), nil)))
	r.must("Flush", r.flush())
	r.fx.Break(7_777)
	r.failing(400)
	r.consistent()
	r.fx.Mend()
}

func examFlushFails(r *rig) {
	r.must("Write", r.write(r.lend(texts(0, 5, 100), nil)))
	r.must("Flush", r.flush())
	for _, after := range []int{0, 1, 150, 399} {
		r.fx.Break(after)
		r.failing(2)
		r.consistent()
		r.fx.Mend()
		_ = r.flush() // nothing is waiting; a sink may still report what it could not clean up
	}
	r.consistent()
}

func examCloseFails(r *rig) {
	l := r.lend(texts(0, 30, 100), nil)
	r.must("Write", r.write(l))
	r.fx.Break(1_234)
	err := r.close()
	r.consistent()
	if _, failed := r.split(); err == nil && len(failed) > 0 {
		r.Errorf("Close returned nil, but %d messages failed", len(failed))
	}
	r.fx.Mend()
}

func examRetry(r *rig) {
	r.must("Write", r.write(r.lend(texts(0, 10, 100), nil)))
	r.must("Flush", r.flush())
	for round, after := range []int{0, 333, 10_000} {
		r.fx.Break(after)
		r.failing(100 + round)
		r.consistent()
		r.fx.Mend()
		r.must("Write again, the destination being mended", r.write(r.lend(r.takeFailed(), nil)))
		r.must("Flush", r.flush())
		r.consistent()
		r.once()
	}
}

// takeFailed is the messages that have failed, which from now on count as tried again.
func (r *rig) takeFailed() (failed []Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lent {
		for _, m := range l.msgs {
			if m.err != nil && !m.retried {
				m.retried = true
				failed = append(failed, m.Message)
			}
		}
	}
	return failed
}

// once looks whether nothing has arrived twice, where that is promised.
func (r *rig) once() {
	r.Helper()
	seen := map[string]bool{}
	for _, m := range r.read() {
		if seen[string(m.Payload)] && r.fx.Promises.Exact {
			r.Errorf("message %s arrived twice: it was there although it had failed", show(m.Payload))
		}
		seen[string(m.Payload)] = true
	}
}

func examReopen(r *rig) {
	want := texts(0, 10, 60)
	r.must("Write", r.write(r.lend(want, nil)))
	r.must("Close", r.close())
	r.open()
	more := texts(10, 10, 60)
	r.must("Write", r.write(r.lend(more, nil)))
	r.must("Flush", r.flush())
	r.arrived(append(want, more...))
}

// examReaders has plugins read what the sink is lent. It finds something with -race only, or a sink that changes what it is lent.
func examReaders(r *rig) {
	r.keep = true
	var want []Message
	for i := range 4 {
		msgs := texts(i*64, 64, 500)
		want = append(want, msgs...)
		l := r.lend(msgs, nil)
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for j := range l.batch.Len() {
					if !bytes.Equal(l.batch.Payload(j), msgs[j].Payload) {
						r.Errorf("a reader beside the sink sees payload %s, want %s", show(l.batch.Payload(j)), show(msgs[j].Payload))
						return
					}
				}
				_ = l.batch.Left()
			})
		}
		err := r.write(l)
		readers.Wait()
		r.must("Write", err)
	}
	r.must("Flush", r.flush())
	r.arrived(want)
}
