package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"
)

// compiled is the schema of the test's kinds, itself checked against the rules for schemas.
func compiled(t *testing.T, reg *kind.Registry) *jsonschema.Schema {
	t.Helper()
	text, err := config.Schema(reg)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("penstock.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("penstock.json")
	if err != nil {
		t.Fatalf("the schema is wrong: %v\n%s", err, text)
	}
	return schema
}

// refused says what a schema has against a file. What is not YAML, or not JSON, it cannot judge.
func refused(t *testing.T, schema *jsonschema.Schema, text []byte) error {
	t.Helper()
	var plain any
	if err := yaml.Load(text, &plain); err != nil {
		return nil
	}
	asJSON, err := json.Marshal(plain)
	if err != nil {
		return nil
	}
	inst, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(inst)
}

// Promise: the schema takes what is good, and Load refuses whatever the schema refuses.
func TestSchemaAgrees(t *testing.T) {
	schema := compiled(t, registry())
	good, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(good) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range good {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := refused(t, schema, text); err != nil {
			t.Errorf("%s is good, but the schema says: %v", name, err)
		}
	}
	bad, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, name := range bad {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if refused(t, schema, text) != nil {
			known++
		}
	}
	if known < 10 {
		t.Errorf("the schema refuses %d of %d bad files: it should find more", known, len(bad))
	}
}

// The same with every value of a good file replaced by others, left out, and joined by one more.
func TestSchemaAgreesOnMutants(t *testing.T) {
	schema := compiled(t, registry())
	tried, seen := 0, 0
	try := func(root *yaml.Node, what string) {
		text, err := yaml.Dump(root)
		if err != nil {
			t.Fatal(err)
		}
		tried++
		says := refused(t, schema, text)
		if says == nil {
			return
		}
		seen++
		if _, err := config.Parse("mutant.yaml", text, options()); err == nil {
			t.Errorf("%s: taken, but the schema says %v", what, says)
		}
	}
	for _, name := range []string{"testdata/good/everything.yaml", "testdata/good/flights.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var root yaml.Node
		if err := yaml.Load(text, &root); err != nil {
			t.Fatal(err)
		}
		mutate(&root, &root, "", try)
	}
	if tried < 500 || seen < tried/4 {
		t.Errorf("%d mutants, of which the schema refused %d: that tests little", tried, seen)
	}
}

// mutate tries each change of what is below n, one at a time.
func mutate(root, n *yaml.Node, path string, try func(root *yaml.Node, what string)) {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	others := []*yaml.Node{
		scalar("!!str", "x"), scalar("!!str", "5s"), scalar("!!str", "8MiB"), scalar("!!str", ""), scalar("!!int", "5"), scalar("!!int", "-1"),
		scalar("!!int", "0"), scalar("!!float", "1.5"), scalar("!!bool", "true"), scalar("!!null", "null"), scalar("!!str", "${WORD}"),
		scalar("!!int", "100000"),
		{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{scalar("!!str", "a")}},
		{Kind: yaml.SequenceNode, Tag: "!!seq"},
		{Kind: yaml.MappingNode, Tag: "!!map"},
		{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{scalar("!!str", "a"), scalar("!!str", "b")}},
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		at := path
		if n.Kind == yaml.MappingNode {
			at += "." + n.Content[i-1].Value
		}
		for _, other := range others {
			n.Content[i] = other
			try(root, at+" = "+other.Value+" "+other.Tag)
		}
		n.Content[i] = child
		mutate(root, child, at, try)
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	whole := n.Content
	for i := 0; i < len(whole); i += 2 {
		n.Content = append(append([]*yaml.Node{}, whole[:i]...), whole[i+2:]...)
		try(root, path+" without "+whole[i].Value)
	}
	n.Content = append(append([]*yaml.Node{}, whole...), scalar("!!str", "more"), scalar("!!str", "x"))
	try(root, path+" with more")
	n.Content = whole
}
