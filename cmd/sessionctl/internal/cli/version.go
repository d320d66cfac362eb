package cli

import (
	"cmp"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Library  string `json:"library"`
				Go       string `json:"go"`
				Revision string `json:"revision"`
			}{Version: "unknown", Library: "unknown"}
			if info, ok := debug.ReadBuildInfo(); ok {
				v.Version, v.Go = info.Main.Version, info.GoVersion
				for _, dep := range info.Deps {
					if dep.Path == "github.com/pgsession/session" {
						v.Library = dep.Version
					}
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			return a.printTable([][]string{{"sessionctl", v.Version}, {"library", v.Library}, {"Go", v.Go}, {"revision", cmp.Or(v.Revision, "-")}})
		},
	}
}
