package httpout

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/kind"
	"github.com/penstock-dev/penstock/plugin"
)

// Promise: of the URL no more than the host is shown, for the rest is often a secret, and nothing of token and headers; whatever the
// endpoint answers, and however a request fails.
func TestSecretsAreNotShown(t *testing.T) {
	const path, query, password, token, header = "T0SECRET1", "q9SECRET2", "pwSECRET3", "tkSECRET4", "hdSECRET5"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("do") {
		case "elsewhere":
			w.Header().Set("Location", "http://other.invalid"+r.URL.RequestURI())
			w.WriteHeader(http.StatusPermanentRedirect)
		case "nonsense":
			w.Header().Set("Location", "http://%"+r.URL.RequestURI())
			w.WriteHeader(http.StatusPermanentRedirect)
		case "by get":
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusSeeOther)
		case "cut": // where an error ends, too
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, "%s%s", strings.Repeat("x", showBody-4), path)
		default:
			w.WriteHeader(map[string]int{"later": 500, "refused": 400}[r.URL.Query().Get("do")])
			_, _ = fmt.Fprintf(w, "cannot POST %s, %s of %s, %s", r.URL.RequestURI(), r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Key"))
		}
	}))
	defer srv.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, do := range []string{"elsewhere", "nonsense", "by get", "cut", "later", "refused", "gone"} {
		t.Run(do, func(t *testing.T) {
			base := srv.URL
			if do == "gone" {
				base = gone.URL
			}
			cfg := one(strings.Replace(base, "//", "//u:"+password+"@", 1) + "/services/" + path + "/x?key=" + query + "&do=" + url.QueryEscape(do))
			cfg.Headers = map[string]kind.Secret{"X-Key": header}
			if do != "later" { // there the password is sent
				cfg.Token = token
			}
			cfg.Breaker.Failures = 1
			log := &notes{}
			r := newLogged(t, cfg, log.logger())
			r.send("a")
			err := r.next(1)["a"]
			if k, _ := plugin.Classify(err); err == nil || k == plugin.KindAck {
				t.Fatalf("fate %v", err)
			}
			all := fmt.Sprintf("%v\n%+v\n%s\n%s", err, err, r.Status().Detail, log)
			for _, secret := range []string{path, query, password, token, header, path[:5], base64.StdEncoding.EncodeToString([]byte("u:" + password))} {
				if strings.Contains(all, secret) {
					t.Errorf("%s is shown:\n%s", secret, all)
				}
			}
			if host := strings.TrimPrefix(base, "http://"); !strings.Contains(all, "POST http://"+host+"/...") {
				t.Errorf("the host is not shown:\n%s", all)
			}
		})
	}
}

// A short path is no secret in a text of others, and a URL without one has none.
func TestHiderLeavesTextsAlone(t *testing.T) {
	u, err := url.Parse("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	const text = "dial tcp 127.0.0.1:80: connect: connection refused / v1 a=1"
	if got := newHider(u, "", nil).text(text); got != text {
		t.Errorf("%q", got)
	}
	u.Path, u.RawQuery = "/v1", "a=1"
	if got, want := newHider(u, "", nil).text("see http://example.com/v1?a=1 or v1"), "see http://example.com... or v1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
