package plugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock-dev/penstock/plugin"
)

// Promise: a verdict is found however deeply it is wrapped, and the cause stays visible.
func TestClassifyFindsTheVerdict(t *testing.T) {
	cause := errors.New("no route")
	tests := []struct {
		name  string
		err   error
		kind  plugin.Kind
		after time.Duration
		says  string
		cause bool
	}{
		{"nil acknowledges", nil, plugin.KindAck, 0, "", false},
		{"an error fails", cause, plugin.KindFail, 0, "no route", true},
		{"retry", plugin.Retry(cause, 0), plugin.KindRetry, 0, "retry: no route", true},
		{"retry after", plugin.Retry(cause, time.Second), plugin.KindRetry, time.Second, "retry after 1s: no route", true},
		{"retry without cause", plugin.Retry(nil, 0), plugin.KindRetry, 0, "retry", false},
		{"reject", plugin.Reject(cause), plugin.KindReject, 0, "reject: no route", true},
		{"reject without cause", plugin.Reject(nil), plugin.KindReject, 0, "reject", false},
		{"wrapped", fmt.Errorf("b: %w", fmt.Errorf("a: %w", plugin.Reject(cause))), plugin.KindReject, 0, "b: a: reject: no route", true},
		{"joined", errors.Join(cause, plugin.Retry(nil, time.Minute)), plugin.KindRetry, time.Minute, "no route", true},
		{"the outer verdict counts", plugin.Reject(plugin.Retry(cause, time.Second)), plugin.KindReject, 0, "reject: retry after 1s", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kind, after := plugin.Classify(tt.err)
			if kind != tt.kind || after != tt.after {
				t.Errorf("got %v after %v, want %v after %v", kind, after, tt.kind, tt.after)
			}
			if tt.err != nil && !strings.HasPrefix(tt.err.Error(), tt.says) {
				t.Errorf("says %q, want %q", tt.err, tt.says)
			}
			if errors.Is(tt.err, cause) != tt.cause {
				t.Errorf("errors.Is(cause) is %v", !tt.cause)
			}
		})
	}
}

// Promise: kinds have names, unknown ones too.
func TestKindNames(t *testing.T) {
	for k, want := range map[plugin.Kind]string{plugin.KindAck: "ack", plugin.KindHold: "hold", 99: "kind(99)"} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", k, k.String(), want)
		}
	}
}

// Promise: settings that the plugin does not have are an error, and so is anything behind them.
func TestDecodeRefusesWhatThePluginDoesNotKnow(t *testing.T) {
	type settings struct{ Threshold int }
	tests := []struct {
		name, config string
		want         int
		fails        string
	}{
		{"none", "", 0, ""},
		{"known", `{"threshold": 60}`, 60, ""},
		{"unknown", `{"treshold": 60}`, 0, "treshold"},
		{"two values", `{"threshold": 60} {}`, 60, "more than one JSON value"},
		{"wrong type", `{"threshold": "x"}`, 0, "threshold"},
		{"no JSON", `{`, 0, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s settings
			says := func(err error) string { return strings.ToLower(fmt.Sprint(err)) }
			err := plugin.Env{Plugin: "p", Config: json.RawMessage(tt.config)}.Decode(&s)
			switch {
			case tt.fails == "" && err != nil:
				t.Fatal(err)
			case tt.fails != "" && (!strings.Contains(says(err), strings.ToLower(tt.fails)) || !strings.Contains(says(err), `"p"`)):
				t.Fatalf("error is %v, want the plugin's name and %q in it", err, tt.fails)
			case tt.fails == "" && s.Threshold != tt.want:
				t.Errorf("got %d", s.Threshold)
			}
		})
	}
}

// Promise: a panic as an error is ErrPanic, and shows its value.
func TestPanicErrorIsErrPanic(t *testing.T) {
	err := error(&plugin.PanicError{Value: "boom"})
	if !errors.Is(err, plugin.ErrPanic) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
}
