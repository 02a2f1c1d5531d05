package arena

// View is a pinned span of bytes: they stay what they are until Release. A View is not to be copied: release each once. It is not
// safe for concurrent use.
type View struct {
	slab *Slab
	b    []byte
}

// Bytes is the span, read-only, valid until Release; nil after that.
func (v *View) Bytes() []byte { return v.b }

// Release ends the view. Releasing it again does nothing.
func (v *View) Release() {
	if s := v.slab; s != nil {
		*v = View{}
		s.Release()
	}
}

// Resolve pins what r names. It reports false, and yields nothing, if the lease that r was made from has ended, or if r never named
// anything in this arena. The caller releases the view. It takes no lock.
func (a *Arena) Resolve(r Ref) (View, bool) {
	s := a.slots.at(r.slot)
	if s == nil || r.gen == 0 {
		return View{}, false
	}
	for {
		st := s.state.Load()
		if refs := st & refsMask; st>>refsBits != r.gen || refs == 0 || refs == refsMask {
			return View{}, false
		}
		if s.state.CompareAndSwap(st, st+1) {
			break
		}
	}
	s.trace.note("resolve", false)
	var mem []byte
	if s.big != nil {
		mem = s.big.bytes() // s.mem may be growing
	} else {
		mem = s.mem
	}
	end := uint64(r.off) + uint64(r.n)
	if end > uint64(len(mem)) {
		s.Release()
		return View{}, false
	}
	return View{slab: s, b: mem[r.off:end:end]}, true
}
