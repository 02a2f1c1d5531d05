package config_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
)

func TestExplain(t *testing.T) {
	k, _ := registry().Lookup(kind.RoleSource, "quay")
	all := map[string]config.Setting{}
	for _, s := range config.Explain(k) {
		all[s.Path] = s
	}
	want := []config.Setting{
		{Path: "path", Type: "text", Required: true, Example: "./in.ndjson", Description: "File to read."},
		{Path: "poll", Type: "duration", Default: "250ms", Example: "1s", Description: "How often."},
		{Path: "buffer", Type: "size", Default: "64KiB", Example: "64KiB", Description: "Bytes."},
		{Path: "follow", Type: "true or false", Default: "false", Description: "Wait for more at the end."},
		{Path: "mode", Type: "text", Default: "append", Enum: []string{"append", "truncate"}, Description: "What to do."},
		{Path: "backoff.max", Type: "duration", Default: "1m", Description: "The longest wait."},
		{Path: "tags", Type: "list of text", Default: "[a, b]", Description: "Words."},
		{Path: "routes", Type: "list of map", Description: "Where to."},
		{Path: "routes[].to", Type: "text", Required: true, Description: "A stream."},
		{Path: "headers", Type: "map of secret", Description: "Headers."},
		{Path: "token", Type: "secret", Description: "Shared | secret."},
	}
	for _, w := range want {
		got := all[w.Path]
		if len(got.Enum) != len(w.Enum) || strings.Join(got.Enum, ",") != strings.Join(w.Enum, ",") {
			t.Errorf("%s: enum %v", w.Path, got.Enum)
		}
		got.Enum, w.Enum = nil, nil
		if gotText, wantText := asJSON(t, got), asJSON(t, w); gotText != wantText {
			t.Errorf("got  %s\nwant %s", gotText, wantText)
		}
	}
	if all["tls.cert"].Path == "" || !all["tls.cert"].Required {
		t.Errorf("tls.cert: %+v", all["tls.cert"])
	}
	free, _ := registry().Lookup(kind.RolePlugin, "delays")
	if got := config.Explain(free); got != nil {
		t.Errorf("settings of a plugin whose settings are free: %v", got)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The reference names every kind and every key, and its examples are files that Parse takes.
func TestReference(t *testing.T) {
	page := string(config.Reference(registry()))
	for _, want := range []string{
		"### Source `quay`", "### Sink `stdout`", "### Plugin `late`", "| `listen` |", "| `mailbox.overflow` | `block`, `drop_oldest` | `block` |",
		"| `path` | text | *required* |", `Shared \| secret.`, "It has *all* types.",
		"```yaml\nplugins:\n  name:\n    filter: { where: 'msg.a > 1' }\n    from: in\n",
		"It has no settings.", "Its settings are its own.", "Example: `msg.a in [1, 2]`",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page:\n%s", want, page)
		}
	}
	if strings.Contains(page, "  \n") {
		t.Error("there are spaces at the end of a line")
	}
}

// Every common key is described.
func TestEveryKeyIsDescribed(t *testing.T) {
	all := config.Top()
	for _, role := range []kind.Role{kind.RoleSource, kind.RolePlugin, kind.RoleSink} {
		all = append(all, config.Common(role)...)
	}
	for _, s := range all {
		if !strings.HasSuffix(s.Description, ".") {
			t.Errorf("%s: description %q is no sentence", s.Path, s.Description)
		}
		if s.Default == "" && s.Example == "" && s.Type != "map" && len(s.Enum) == 0 {
			t.Errorf("%s: neither default nor example", s.Path)
		}
	}
}
