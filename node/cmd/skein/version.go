package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker only:
//
//	go build -ldflags "-X main.version=v1.2.3 -X main.commit=0123abc"
//
// Without that, what the Go tool wrote into the binary is used.
var version, commit string

// build is what `skein version --json` prints.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisBuild describes the running binary.
func thisBuild() build {
	b := build{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = cmp.Or(b.Commit, s.Value)
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "GOARM":
			b.Platform += "v" + s.Value
		}
	}
	b.Version = cmp.Or(b.Version, info.Main.Version, "(devel)")
	b.Commit = cmp.Or(b.Commit, "unknown")
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and platform",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return a.print(b, func(w io.Writer) {
				modified := ""
				if b.Modified {
					modified = " (modified)"
				}
				fmt.Fprintf(w, "skein %s, commit %s%s, %s, %s\n", b.Version, b.Commit, modified, b.Go, b.Platform)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
