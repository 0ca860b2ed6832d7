package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A tlsStatus is what a running server tells about its certificates, in a file for those who may read
// the data directory.
type tlsStatus struct {
	PID   int       `json:"pid"`
	Mode  tlsMode   `json:"mode"`
	Time  time.Time `json:"time"`
	Ended bool      `json:"ended,omitempty"` // the process has, at Time
	tlsauto.Status
}

func (conf *config) tlsDir() string { return filepath.Join(conf.DataDir, "tls") }

func (conf *config) tlsStatusFile() string { return filepath.Join(conf.tlsDir(), "status.json") }

const (
	tlsStatusEvery   = time.Minute
	tlsStatusGoodFor = 3 * time.Minute
)

// report writes the file until ctx ends, and once more then.
func (t *tlsServer) report(ctx context.Context) {
	tick := time.NewTicker(tlsStatusEvery)
	defer tick.Stop()
	told := ""
	for ended := false; ; {
		s := tlsStatus{PID: os.Getpid(), Mode: t.conf.TLS.Mode, Time: time.Now().UTC(), Ended: ended, Status: t.manager.Status()}
		err := replaceSmall(t.conf.tlsStatusFile(), s)
		if err != nil && err.Error() != told {
			told = err.Error()
			t.log.Warn("write the status of certificates", "error", err)
		}
		if ended {
			return
		}
		select {
		case <-tick.C:
		case <-t.changed:
		case <-ctx.Done():
			ended = true
		}
	}
}

func (s *tlsStatus) gone(now time.Time) error {
	return silent("server", s.Time, s.Ended, tlsStatusGoodFor, now)
}

func (s *tlsStatus) alarms(now time.Time) error {
	var errs []error
	for _, c := range s.Certificates {
		alarm := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("alarm: %s: %s", printable(strings.Join(c.Names, " ")), fmt.Sprintf(format, args...)))
		}
		standIns := ""
		if len(c.StandIns) > 0 {
			standIns = fmt.Sprintf("; until %s stored ones stand in for %s", moment(c.StandInsNotAfter), printable(strings.Join(c.StandIns, " ")))
		}
		switch left := c.NotAfter.Sub(now); {
		case c.State == tlsauto.Fallback || c.State == tlsauto.None:
			alarm("there is no certificate of an authority yet%s", standIns)
		case left <= 0:
			alarm("it has expired, at %s%s", moment(c.NotAfter), standIns)
		case left < c.NotAfter.Sub(c.NotBefore)/6:
			alarm("it expires soon, at %s", moment(c.NotAfter))
		}
		if c.LastError != "" {
			alarm("%s", printable(c.LastError))
		}
		if c.NotStored != "" {
			alarm("it could not be stored: %s", printable(c.NotStored))
		}
		if c.File != nil && c.File.LastError != "" {
			alarm("the file is refused: %s", printable(c.File.LastError))
		}
	}
	if s.ClientCAs != nil && s.ClientCAs.LastError != "" {
		errs = append(errs, fmt.Errorf("alarm: authorities of clients: the file is refused: %s", printable(s.ClientCAs.LastError)))
	}
	return errors.Join(errs...)
}

type tlsStatusCommand struct{ statusCommand }

func (c *tlsStatusCommand) Run(p *program) error {
	return c.show(p, (*config).tlsStatusFile, new(tlsStatus),
		"no server with HTTPS has run in %s: start it with --tls-mode, or name its --data-dir")
}

func (s *tlsStatus) print(to io.Writer) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMES\tSTATE\tFROM\tEXPIRES\tRENEWAL\tNEXT TRY\tFAILURES")
	for _, c := range s.Certificates {
		from := c.Issuer
		if c.File != nil {
			from = c.File.Path
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", printable(strings.Join(c.Names, " ")), printable(string(c.State)), printable(from),
			momentOrNone(c.NotAfter), momentOrNone(c.Renewal), momentOrNone(c.NextTry), c.Failures)
	}
	return table.Flush()
}
