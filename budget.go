package penstock

// slabSize is the arena's default.
const slabSize = 256 << 10

// Parts of the budget, in tenths, as package arena divides it.
const (
	sourceTenths = 7
	emitTenths   = 2
)

// needs is the least memory, in bytes, with which the pipeline cannot come to a standstill: each source can read a message of the largest
// size, and each worker that emits can emit one while it fills a slab.
func (p *Pipeline) needs() int64 {
	message := int64(p.MaxMessage) + slabSize
	sources := int64(len(p.Sources)) * (message + slabSize)
	emits := int64(0)
	for _, g := range p.Plugins {
		if len(g.Emits) > 0 {
			emits += int64(max(g.Workers, 1)) * (message + slabSize)
		}
	}
	return max(sources*10/sourceTenths, emits*10/emitTenths, 10*(message+slabSize), 16*slabSize)
}

// emitShare is the emit memory of plugin g, and what one call of it may emit.
func (p *Pipeline) emitShare(g Plugin) (limit int64, perCall int) {
	workers := int64(0)
	for _, other := range p.Plugins {
		if len(other.Emits) > 0 {
			workers += int64(max(other.Workers, 1))
		}
	}
	if workers == 0 || len(g.Emits) == 0 {
		return slabSize, 0
	}
	each := p.Memory * emitTenths / 10 / workers
	each -= each % slabSize
	return each * int64(max(g.Workers, 1)), int(min(each-2*slabSize, 16<<20))
}
