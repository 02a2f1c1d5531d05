// Command penstock runs pipelines of the standard kinds; `penstock help` says what else it does.
package main

import (
	"os"

	"github.com/penstock-dev/penstock/cli"
	"github.com/penstock-dev/penstock/standard"
)

func main() { os.Exit(cli.Main(standard.Kinds())) }
