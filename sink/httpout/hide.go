package httpout

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/kind"
)

// minSecret is the length in bytes from which a part of the address or a header's value counts as a secret by itself: shorter ones stand in
// any text.
const minSecret = 6

// shownURL is what may be shown of an address: where it is, and not what stands behind that, which is often a secret.
func shownURL(u *url.URL) string { return u.Scheme + "://" + u.Host + "/..." }

// hider takes secrets out of texts that others have written: answers, and errors of the HTTP client.
type hider struct {
	replace *strings.Replacer
	longest int // secret, in bytes
}

// newHider makes a hider of all that is secret in requests to u: path, query and password of u, token, and the values of headers.
func newHider(u *url.URL, token string, headers map[string]kind.Secret) hider {
	var secrets []string
	add := func(atLeast int, list ...string) {
		for _, s := range list {
			if len(s) >= atLeast && !slices.Contains(secrets, s) {
				secrets = append(secrets, s)
			}
		}
	}
	add(2, u.RequestURI(), u.Path, u.EscapedPath(), u.RawQuery) // from 2: a path / is none
	add(minSecret, strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' })...)
	add(minSecret, strings.FieldsFunc(u.EscapedPath(), func(c rune) bool { return c == '/' })...)
	for _, pair := range strings.FieldsFunc(u.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		_, value, _ := strings.Cut(pair, "=")
		add(minSecret, pair, value)
		if plain, err := url.QueryUnescape(value); err == nil {
			add(minSecret, plain)
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		add(1, u.User.String()+"@")
		add(minSecret, u.User.Username(), password, base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	add(minSecret, token)
	for _, value := range headers {
		add(minSecret, value.Reveal())
		add(minSecret, strings.Fields(value.Reveal())...) // a scheme, and what follows it
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // of two that begin at one place, the longer one goes
	var h hider
	pairs := make([]string, 0, 2*len(secrets))
	for _, s := range secrets {
		h.longest = max(h.longest, len(s))
		pairs = append(pairs, s, "...")
	}
	h.replace = strings.NewReplacer(pairs...)
	return h
}

// text is s without the secrets.
func (h hider) text(s string) string { return h.replace.Replace(s) }

// error is err, with a text without the secrets.
func (h hider) error(err error) error {
	text := err.Error()
	if hidden := h.text(text); hidden != text {
		return &hiddenError{hidden, err}
	}
	return err
}

// hiddenError is an error whose text has secrets.
type hiddenError struct {
	text string
	err  error
}

func (e *hiddenError) Error() string { return e.text }

// Unwrap is the error, for errors.Is.
func (e *hiddenError) Unwrap() error { return e.err }
