package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bedplate/bedplate/backup"
)

// A mode is what a process does with the databases.
type mode string

const (
	modeServer  mode = "server"
	modeStandby mode = "standby"
)

// A status is what a running server, or a standby, tells about its backups, in a file for those
// who may read the data directory.
type status struct {
	PID       int              `json:"pid"`
	Mode      mode             `json:"mode"`
	Time      time.Time        `json:"time"`
	Ended     bool             `json:"ended,omitempty"` // the process has, at Time
	Databases []databaseStatus `json:"databases"`
	Promotion *promotion       `json:"promotion,omitempty"` // the last one
}

type databaseStatus struct {
	Name      string                  `json:"name"`
	Promoted  bool                    `json:"promoted,omitempty"` // while others are not yet
	Replica   *backup.Status          `json:"replica,omitempty"`
	Standby   *backup.StandbyStatus   `json:"standby,omitempty"`
	Snapshots *backup.SnapshotsStatus `json:"snapshots,omitempty"`
}

// A promotion is what became of an order to promote a standby. While it is neither done nor has an
// error, it is under way.
type promotion struct {
	ID    string `json:"id"` // of the order
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
}

// readStatus reads what the server last told.
func (conf *config) readStatus() (*status, error) {
	s := new(status)
	return s, readSmall(conf.statusFile(), s)
}

// statusGoodFor is the age at which a status says nothing about now any more.
const statusGoodFor = 15 * time.Second

func (s *status) gone(now time.Time) error {
	return silent(string(s.Mode), s.Time, s.Ended, statusGoodFor, now)
}

func (s *status) alarms(time.Time) error {
	var errs []error
	for _, d := range s.Databases {
		alarm := func(what, text string) {
			errs = append(errs, fmt.Errorf("alarm: database %q: %s: %s", d.Name, what, text))
		}
		if d.Replica != nil && d.Replica.Alarm != nil {
			alarm("replica", d.Replica.Alarm.Text)
		}
		if d.Snapshots != nil && d.Snapshots.Alarm != nil {
			alarm("snapshots", d.Snapshots.Alarm.Text)
		}
		switch st := d.Standby; {
		case st == nil:
		case st.Error != "":
			alarm("standby", st.Error)
		case !st.Heard.IsZero() && s.Time.Sub(st.Heard) > statusGoodFor:
			alarm("standby", "nothing was heard of the replica since "+moment(st.Heard))
		}
	}
	return errors.Join(errs...)
}

type backupStatus struct{ statusCommand }

func (c *backupStatus) Run(p *program) error {
	return c.show(p, (*config).statusFile, new(status),
		"no server with backups has run in %s: start it with --replica-url or --backup-dir, or name its --data-dir")
}

func (s *status) print(to io.Writer) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tSTATE\tLAG\tCOPIED UNTIL\tTRANSACTION\tTRIAL RESTORE\tLAST SNAPSHOT")
	for _, d := range s.Databases {
		row := []string{printable(d.Name), "-", "-", "-", "-", "-", "-"}
		if r := d.Replica; r != nil {
			row[1], row[2], row[3] = printable(string(r.State)), r.Lag.Round(time.Millisecond).String(), momentOrNone(r.Proven)
			row[4] = fmt.Sprint(r.ReplicaTXID)
			if r.Drill != nil {
				row[5] = "good at " + moment(r.Drill.At)
				if r.Drill.Error != "" {
					row[5] = "FAILED at " + moment(r.Drill.At)
				}
			}
		}
		if d.Promoted {
			row[1] = "promoted"
		}
		if st := d.Standby; st != nil {
			row[1], row[3] = "following", momentOrNone(st.Heard)
			if !st.Ready {
				row[1] = "beginning to follow"
			}
			row[4] = fmt.Sprintf("%d of %d", st.TXID, st.ReplicaTXID)
		}
		if d.Snapshots != nil && d.Snapshots.Newest != nil {
			row[6] = moment(d.Snapshots.Newest.Time)
		}
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			fmt.Fprint(table, cell)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

func momentOrNone(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return moment(t)
}
