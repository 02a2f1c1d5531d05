package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	mango "github.com/muesli/mango-cobra"
	"github.com/muesli/roff"
	"github.com/penstock-dev/penstock/config"
	"github.com/penstock-dev/penstock/kind"
	"github.com/spf13/cobra"
)

func (a *App) graphCommand() *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use: "graph", Short: "Show what feeds what", Args: noFile,
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
	values(cmd, "format", "text", "dot")
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
			fmt.Fprint(cmd.OutOrStdout(), a.versionText())
		},
	}
}

// versionText is what version and --version print.
func (a *App) versionText() string {
	text := fmt.Sprintf("%s %s %s %s/%s\n", a.Name, a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		text += revision(info.Settings)
	}
	return text
}

// revision is a line about the source that the binary was built from, or nothing if the go command has not noted it.
func revision(settings []debug.BuildSetting) string {
	is := map[string]string{}
	for _, s := range settings {
		is[s.Key] = s.Value
	}
	if is["vcs.revision"] == "" {
		return ""
	}
	line := "revision " + is["vcs.revision"]
	if is["vcs.time"] != "" {
		line += " of " + is["vcs.time"]
	}
	if is["vcs.modified"] == "true" {
		line += ", with changes"
	}
	return line + "\n"
}
