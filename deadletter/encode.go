package deadletter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// line is a letter as one line of JSON. Bytes are text where that is possible; the field beside them says which.
type line struct {
	ID       string     `json:"id"`
	Source   string     `json:"source,omitempty"`
	Stream   string     `json:"stream,omitempty"`
	Plugin   string     `json:"plugin,omitempty"`
	Version  string     `json:"version,omitempty"`
	Attempts int        `json:"attempts"`
	Reason   string     `json:"reason"`
	Accepted *time.Time `json:"accepted,omitempty"`
	First    *time.Time `json:"first,omitempty"`
	Died     *time.Time `json:"died,omitempty"`

	Key         string       `json:"key,omitempty"`
	KeyEncoding encoding     `json:"key_encoding,omitempty"`
	Headers     []headerLine `json:"headers,omitempty"`
	Encoding    encoding     `json:"payload_encoding"`
	Payload     string       `json:"payload"`
}

type headerLine struct {
	Name          string   `json:"name"`
	NameEncoding  encoding `json:"name_encoding,omitempty"`
	Value         string   `json:"value"`
	ValueEncoding encoding `json:"value_encoding,omitempty"`
}

// encoding says how bytes became a JSON string.
type encoding string

const (
	asText   encoding = "text" // as they are; where the field may be left out, so is this
	asBase64 encoding = "base64"
)

// encode makes a string of p: text if p is valid UTF-8, unless escaping would make that longer than base64.
func encode(p []byte) (string, encoding) {
	if utf8.Valid(p) && escapedLen(p) <= base64.StdEncoding.EncodedLen(len(p)) {
		return string(p), asText
	}
	return base64.StdEncoding.EncodeToString(p), asBase64
}

// escapedLen is at least the length of p as a JSON string, short of the quotes.
func escapedLen(p []byte) int {
	n := len(p)
	for _, c := range p {
		switch {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < ' ' || c == 0x7f:
			n += 5
		}
	}
	return n + 3*bytes.Count(p, []byte("\u2028")) + 3*bytes.Count(p, []byte("\u2029"))
}

// brief is encode where text is left out.
func brief(p []byte) (string, encoding) {
	s, e := encode(p)
	if e == asText {
		e = ""
	}
	return s, e
}

// decode undoes encode and brief. The empty string is nil.
func decode(s string, e encoding) ([]byte, error) {
	switch e {
	case asText, "":
		if s == "" {
			return nil, nil
		}
		return []byte(s), nil
	case asBase64:
		p, err := base64.StdEncoding.DecodeString(s)
		if len(p) == 0 {
			p = nil
		}
		return p, err
	}
	return nil, fmt.Errorf("unknown encoding %q, want %q or %q", e, asText, asBase64)
}

// stamp is t for JSON, which has years of four digits; what is beyond them is not known.
func stamp(t time.Time) *time.Time {
	t = t.UTC()
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return nil
	}
	return &t
}

func unstamp(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// clip is at most MaxReason bytes of valid UTF-8.
func clip(s string) string {
	const mark = "..."
	if len(s) > MaxReason {
		s = s[:MaxReason-len(mark)]
		for i := 0; i < utf8.UTFMax && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]); i++ {
			s = s[:len(s)-1]
		}
		s += mark
	}
	return strings.ToValidUTF8(s, "?")
}

// appendLine appends l, named id, and a newline to buf.
func appendLine(buf *bytes.Buffer, l *Letter, id string) error {
	if len(l.Payload) > MaxLine || len(l.Key) > MaxLine {
		return fmt.Errorf("%w: payload of %d bytes, key of %d; at most %d as a line", ErrTooLarge, len(l.Payload), len(l.Key), MaxLine)
	}
	out := line{
		ID: id, Source: l.Source, Stream: l.Stream, Plugin: l.Plugin, Version: l.Version, Attempts: l.Attempts, Reason: clip(l.Reason),
		Accepted: stamp(l.Accepted), First: stamp(l.First), Died: stamp(l.Died),
	}
	out.Payload, out.Encoding = encode(l.Payload)
	out.Key, out.KeyEncoding = brief(l.Key)
	for _, h := range l.Headers {
		var hl headerLine
		hl.Name, hl.NameEncoding = brief([]byte(h.Name))
		hl.Value, hl.ValueEncoding = brief(h.Value)
		out.Headers = append(out.Headers, hl)
	}
	start := buf.Len()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&out); err != nil {
		return fmt.Errorf("dead letters: letter %s of stream %q: %w", id, l.Stream, err)
	}
	if n := buf.Len() - start; n > MaxLine {
		return fmt.Errorf("%w: %d bytes as a line, at most %d; lower max_message", ErrTooLarge, n, MaxLine)
	}
	return nil
}

// parseLine reads a line. The letter belongs to the caller and shares nothing with p.
func parseLine(p []byte) (l Letter, err error) {
	var in line
	if err := json.Unmarshal(p, &in); err != nil {
		return Letter{}, err
	}
	if in.Encoding == "" {
		return Letter{}, fmt.Errorf("no payload_encoding: this is no letter")
	}
	l = Letter{
		ID: in.ID, Source: in.Source, Stream: in.Stream, Plugin: in.Plugin, Version: in.Version, Attempts: in.Attempts, Reason: in.Reason,
		Accepted: unstamp(in.Accepted), First: unstamp(in.First), Died: unstamp(in.Died),
	}
	if l.Payload, err = decode(in.Payload, in.Encoding); err != nil {
		return Letter{}, fmt.Errorf("payload: %w", err)
	}
	if l.Key, err = decode(in.Key, in.KeyEncoding); err != nil {
		return Letter{}, fmt.Errorf("key: %w", err)
	}
	for i, h := range in.Headers {
		name, err := decode(h.Name, h.NameEncoding)
		if err != nil {
			return Letter{}, fmt.Errorf("name of header %d: %w", i, err)
		}
		value, err := decode(h.Value, h.ValueEncoding)
		if err != nil {
			return Letter{}, fmt.Errorf("header %q: %w", name, err)
		}
		l.Headers = append(l.Headers, Header{string(name), value})
	}
	return l, nil
}
