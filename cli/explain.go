package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/internal/suggest"
	"github.com/penstock-dev/penstock/kind"
	"github.com/spf13/cobra"
)

func (a *App) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain KIND [source|plugin|sink]", Short: "Explain a kind of source, plugin or sink: every setting, its default, an example",
		Example: "  penstock explain http\n  penstock explain http sink\n  penstock explain pipeline   # the keys at the top of a file",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return roleNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return append(a.kindNames(), "pipeline", "native"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch {
			case len(args) == 0:
				return exit(ExitUsage, errors.New("explain what? Give a kind: "+a.subjects()))
			case len(args) > 2:
				return exit(ExitUsage, fmt.Errorf("explain %s: give one kind, and no more than a role behind it", strings.Join(args, " ")))
			case len(args) == 1 && args[0] == "pipeline":
				fmt.Fprintln(out, "The keys at the top of a pipeline's file, beside sources, plugins and sinks.")
				return settings(out, config.Top())
			}
			return a.explain(out, args[0], args[1:])
		},
	}
}

// explain explains all kinds of a name, or those of one role.
func (a *App) explain(out io.Writer, name string, role []string) error {
	if len(role) > 0 && slices.Contains(roleNames(), name) { // the other way round
		name, role[0] = role[0], name
	}
	found := false
	for _, r := range roles() {
		k, ok := a.Kinds.Lookup(r, name)
		if !ok || len(role) > 0 && strings.TrimSuffix(role[0], "s") != string(r) {
			continue
		}
		if found {
			fmt.Fprintln(out)
		}
		found = true
		if err := explain(out, k); err != nil {
			return err
		}
	}
	switch {
	case found:
		return nil
	case len(role) > 0 && slices.Contains(a.kindNames(), name):
		return exit(ExitUsage, fmt.Errorf("there is no %s of kind %q: `%s explain %s` shows what there is", role[0], name, a.Name, name))
	case name == "native":
		return a.explainNative(out)
	}
	return exit(ExitUsage, fmt.Errorf("there is no kind %q%s: there are %s", name, suggest.DidYouMean(name, a.kindNames()), a.subjects()))
}

// explainNative says what stands under native.
func (a *App) explainNative(out io.Writer) error {
	fmt.Fprintf(out, "native: NAME names a plugin that is compiled into the binary, in Go: see docs/write-a-plugin.md and docs/run.md.\n\n"+
		"    delays: { native: delays, from: flights, emits: late, config: { threshold: 60 } }\n\n")
	var names []string
	for _, k := range a.Kinds.Kinds(kind.RolePlugin) {
		if k.Native {
			names = append(names, k.Name)
		}
	}
	if len(names) == 0 {
		fmt.Fprintln(out, "This binary has none of them.")
	} else {
		fmt.Fprintf(out, "This binary has %s; `%s explain %s` shows the settings of one.\n", strings.Join(names, ", "), a.Name, names[0])
	}
	fmt.Fprintln(out, "\nKeys of any plugin:")
	return settings(out, config.Common(kind.RolePlugin))
}

// subjects are what can be explained.
func (a *App) subjects() string { return strings.Join(a.kindNames(), ", ") + "; and pipeline, native" }

func roleNames() (names []string) {
	for _, r := range roles() {
		names = append(names, string(r))
	}
	return names
}

func (a *App) kindNames() []string {
	var names []string
	for _, role := range roles() {
		for _, k := range a.Kinds.Kinds(role) {
			if !slices.Contains(names, k.Name) {
				names = append(names, k.Name)
			}
		}
	}
	return names
}

// explain prints one kind.
func explain(out io.Writer, k kind.Kind) error {
	fmt.Fprintf(out, "%s %s: %s\n", k.Role, k.Name, k.Summary)
	if k.Doc != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimSpace(k.Doc))
	}
	if k.Example != "" {
		fmt.Fprintf(out, "\nExample:\n\n")
		for line := range strings.Lines(strings.TrimSpace(k.Example) + "\n") {
			fmt.Fprint(out, "    ", line)
		}
	}
	switch own := config.Explain(k); {
	case len(own) > 0:
		where := k.Name
		if k.Native {
			where = "config"
		}
		fmt.Fprintf(out, "\nSettings, under %s:\n", where)
		if err := settings(out, own); err != nil {
			return err
		}
	case k.Native:
		fmt.Fprintln(out, "\nWhat stands under config goes to the plugin as it is.")
	default:
		fmt.Fprintln(out, "\nIt has no settings of its own.")
	}
	fmt.Fprintf(out, "\nKeys of any %s:\n", k.Role)
	return settings(out, config.Common(k.Role))
}

// settings prints a list of settings.
func settings(out io.Writer, list []config.Setting) error {
	for _, s := range list {
		about := []string{s.Type}
		if s.Required {
			about = append(about, "required")
		}
		if s.Default != "" {
			about = append(about, "default "+s.Default)
		}
		if len(s.Enum) > 0 {
			about = append(about, "one of "+strings.Join(s.Enum, ", "))
		}
		if s.Example != "" {
			about = append(about, "for example "+s.Example)
		}
		if _, err := fmt.Fprintf(out, "\n  %s  (%s)\n", s.Path, strings.Join(about, "; ")); err != nil {
			return err
		}
		if s.Description != "" {
			fmt.Fprintf(out, "      %s\n", s.Description)
		}
	}
	return nil
}
