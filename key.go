package penstock

import (
	"fmt"
	"runtime/debug"
	"unsafe"

	"github.com/buger/jsonparser"
	"github.com/penstock-dev/penstock/arena"
)

// KeyFunc finds the key of a message in its payload. What it returns must be a part of payload; nil means that the message has no key.
// payload is lent, and must not be changed. It may be called from several goroutines.
type KeyFunc func(payload []byte) []byte

// JSONKey is the field of a JSON object that the path leads to, as it is written there (a string without its quotes). A message without
// the field has no key.
func JSONKey(path ...string) KeyFunc {
	return func(payload []byte) []byte {
		value, kind, _, err := jsonparser.Get(payload, path...)
		if err != nil || kind == jsonparser.NotExist || kind == jsonparser.Null {
			return nil
		}
		return value
	}
}

// KeyError says that a key function returned bytes that are no part of the payload.
type KeyError struct{ Source string }

// Error names the source and the rule.
func (e *KeyError) Error() string {
	return fmt.Sprintf("source %q: its key function returned bytes that are not a part of the payload: return a sub-slice of it", e.Source)
}

// keys fills in key and key hash of each frame of b. A key function that panics fails the batch, and nobody else.
func (in *intake) keys(b *arena.Batch) (err error) {
	toKey := *in.key.Load()
	if toKey == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("its key function panicked: %v\n%s", v, debug.Stack())
		}
	}()
	b.Hashes = b.Hashes[:0]
	for i := range b.Frames {
		f := &b.Frames[i]
		if f.KeyLen == 0 && f.Len > 0 {
			payload := b.Payload(i)
			if key := toKey(payload); len(key) > 0 {
				at := uintptr(unsafe.Pointer(unsafe.SliceData(key))) - uintptr(unsafe.Pointer(unsafe.SliceData(payload)))
				if at > uintptr(len(payload)) || at+uintptr(len(key)) > uintptr(len(payload)) {
					return &KeyError{Source: in.spec.Name}
				}
				f.KeyOff, f.KeyLen = f.Off+uint32(at), uint32(len(key))
			}
		}
		hash := uint64(0)
		if f.KeyLen > 0 {
			hash = in.rt.hash(b.Key(i))
		}
		b.Hashes = append(b.Hashes, hash)
	}
	return nil
}
