package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	mango "github.com/muesli/mango-cobra"
	"github.com/muesli/roff"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/spf13/cobra"
)

func (a *App) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lint [FILE|DIR|GLOB]...", Short: "Check pipelines' files; exit with 1 if one is wrong",
		Example: "  penstock lint\n  penstock lint 'conf/*.yaml'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"penstock.yaml"}
			}
			paths, err := expand(args)
			if err != nil {
				return exit(ExitUsage, err)
			}
			bad := 0
			for _, path := range paths {
				c, err := config.Load(path, a.options())
				if err == nil {
					_, err = c.Pipeline(config.Build{})
				}
				if err != nil {
					bad++
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s\n", path, contents(c))
			}
			if bad > 0 {
				return exit(ExitFailed, nil)
			}
			return nil
		},
	}
}

// expand replaces globs by what they match. Tests of pipelines are no pipelines.
func expand(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		found, err := filepath.Glob(arg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		if strings.ContainsAny(arg, "*?[") {
			found = slices.DeleteFunc(found, func(path string) bool {
				return strings.HasSuffix(path, "_test.yaml") || strings.HasSuffix(path, "_test.yml")
			})
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: no such file", arg)
		}
		out = append(out, found...)
	}
	return out, nil
}

func contents(c *config.Config) string {
	return fmt.Sprintf("%s, %s, %s", count(len(c.Sources), "source"), count(len(c.Plugins), "plugin"), count(len(c.Sinks), "sink"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *App) graphCommand() *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use: "graph", Short: "Show what feeds what", Args: cobra.NoArgs,
		Example: "  penstock graph\n  penstock graph --format dot | dot -Tsvg > graph.svg",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load(path)
			if err != nil {
				return err
			}
			switch format {
			case "text":
				fmt.Fprint(cmd.OutOrStdout(), c.Text())
			case "dot":
				fmt.Fprint(cmd.OutOrStdout(), c.DOT())
			default:
				return exit(ExitUsage, fmt.Errorf("--format %q: give text or dot", format))
			}
			return nil
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&format, "format", "text", "text or dot (Graphviz)")
	return cmd
}

func (a *App) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a pipeline's file, for editors", Args: cobra.NoArgs,
		Example: "  penstock schema > penstock.schema.json\n  # first line of penstock.yaml: # yaml-language-server: $schema=penstock.schema.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := config.Schema(a.Kinds)
			if err != nil {
				return exit(ExitFailed, err)
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}

func (a *App) referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference of all settings, as Markdown", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Reference(a.Kinds))
			return err
		},
	}
}

func roles() []kind.Role { return []kind.Role{kind.RoleSource, kind.RolePlugin, kind.RoleSink} }

func (a *App) listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list [sources|plugins|sinks]", Short: "List the kinds that this binary knows", Args: cobra.MaximumNArgs(1),
		ValidArgs: []string{"sources", "plugins", "sinks"},
		RunE: func(cmd *cobra.Command, args []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			found := false
			for _, role := range roles() {
				if len(args) > 0 && strings.TrimSuffix(args[0], "s") != string(role) {
					continue
				}
				found = true
				for _, k := range a.Kinds.Kinds(role) {
					name := k.Name
					if k.Native {
						name = "native: " + name
					}
					fmt.Fprintf(t, "%s\t%s\t%s\n", role, name, k.Summary)
				}
			}
			if !found {
				return exit(ExitUsage, fmt.Errorf("list %q: give sources, plugins or sinks", args[0]))
			}
			return t.Flush()
		},
	}
}

func (a *App) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain KIND", Short: "Explain a kind of source, plugin or sink: every setting, its default, an example", Args: cobra.ExactArgs(1),
		Example: "  penstock explain http\n  penstock explain pipeline   # the keys at the top of a file",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return append(a.kindNames(), "pipeline"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if args[0] == "pipeline" {
				fmt.Fprintln(out, "The keys at the top of a pipeline's file, beside sources, plugins and sinks.")
				return settings(out, config.Top())
			}
			found := false
			for _, role := range roles() {
				k, ok := a.Kinds.Lookup(role, args[0])
				if !ok {
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
			if !found {
				return exit(ExitUsage, fmt.Errorf("there is no kind %q: there are %s, and pipeline", args[0], strings.Join(a.kindNames(), ", ")))
			}
			return nil
		},
	}
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

func (a *App) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "Print the manual page", Args: cobra.NoArgs, Example: "  penstock man > penstock.1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := mango.NewManPage(1, cmd.Root())
			if err != nil {
				return exit(ExitFailed, err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), page.Build(roff.NewDocument()))
			return err
		},
	}
}

func (a *App) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s %s/%s\n", a.Name, a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
