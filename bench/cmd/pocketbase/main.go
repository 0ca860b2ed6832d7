// Command pocketbase is the peer: PocketBase as a Go program, unmodified, with
// a "seed" command beside its own ones.
//
// Built as is, it uses the SQLite driver PocketBase ships with. Built with
// -tags no_default_driver it uses mattn/go-sqlite3, the way PocketBase's
// documentation describes for programs that may use cgo. The flag --nologs
// turns its activity log off.
package main

import (
	"errors"
	"log"
	"net/http"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"
)

func main() {
	app := pocketbase.NewWithConfig(pocketbase.Config{
		HideStartBanner: true,
		DBConnect:       connect,
	})
	noLogs := app.RootCmd.PersistentFlags().Bool("nologs", false, "keep no activity log")
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.InstallerFunc = nil // opens a browser
		if settings := e.App.Settings(); *noLogs && settings.Logs.MaxDays != 0 {
			settings.Logs.MaxDays = 0
			if err := e.App.Save(settings); err != nil {
				return err
			}
		}
		return e.Next()
	})
	app.RootCmd.AddCommand(seedCommand(app))
	if err := app.Start(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// seedCommand fills a new data directory.
func seedCommand(app core.App) *cobra.Command {
	var targets string
	cmd := &cobra.Command{
		Use:          "seed",
		Short:        "Creates the benchmark's collections and rows",
		SilenceUsage: true,
		Run: func(*cobra.Command, []string) {
			if err := seed(app, targets); err != nil {
				log.Fatal("seed: ", err)
			}
		},
	}
	cmd.Flags().StringVar(&targets, "targets", "targets.json", "file to write the ids and tokens to")
	return cmd
}
