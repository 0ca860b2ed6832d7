package main

import (
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/sqlite"
)

func TestLoadRealtime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		realtime realtime.Config
		log      sqlite.ChangeLogOptions
	}{
		"server: {}": {},
		`realtime:
  max_streams: 1
  max_per_user: 2
  max_per_address: 3
  heartbeat_sec: 4
  write_timeout_sec: 5
  max_lifetime_sec: 6
  change_log:
    max_rows: 7
    max_bytes: 8
    max_age_sec: 9`: {
			realtime.Config{
				MaxStreams: 1, MaxPerUser: 2, MaxPerAddress: 3,
				Heartbeat: 4 * time.Second, WriteTimeout: 5 * time.Second, MaxLifetime: 6 * time.Second,
			},
			sqlite.ChangeLogOptions{MaxRows: 7, MaxBytes: 8, MaxAge: 9 * time.Second},
		},
		`realtime: {max_lifetime_sec: 0, change_log: {max_rows: 0, max_bytes: 0, max_age_sec: 0}}`: {
			realtime.Config{MaxLifetime: -time.Second},
			sqlite.ChangeLogOptions{MaxRows: -1, MaxBytes: -1, MaxAge: -time.Second},
		},
	} {
		conf, err := loadConfig(writeConfig(t, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(conf.Realtime, want.realtime) || conf.ChangeLog != want.log {
			t.Errorf("%s:\n%+v\n%+v, want\n%+v\n%+v", text, conf.Realtime, conf.ChangeLog, want.realtime, want.log)
		}
	}
}

func TestLoadRealtimeReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
realtime:
  max_streams: 0                  # want a whole number from 1
  max_per_user: -1                # want a whole number from 1
  max_per_address: many           # want a whole number, found "many"
  heartbeat_sec: 31               # want a whole number from 1 to 30
  heartbeat: 15                   # unknown key "heartbeat"
  write_timeout_sec: 1.5          # want a whole number, found 1.5
  max_lifetime_sec: -1            # want a whole number from 0
  change_log:
    max_rows: -1                  # want a whole number from 0
    max_age_sec: 9999999999       # want a whole number from 0 to
`
	wantMistakes(t, writeConfig(t, text), text)
}

// Streams exist with the first API that can be watched, behind the same
// proxies as everything else.
func TestBackendRealtime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*realtime.Config{
		"record_apis: [{name: a, table_name: a}]\nrealtime: {max_streams: 5}":                                                   nil,
		"record_apis: [{name: a, table_name: a, enable_subscriptions: true}]\nserver: {proxies: 2}\nrealtime: {max_streams: 5}": {MaxStreams: 5, Proxies: 2},
	} {
		conf, err := loadConfig(writeConfig(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if got := conf.backend(slog.New(slog.DiscardHandler)).Realtime; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}
