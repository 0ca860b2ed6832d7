package main

import (
	"math"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/records"
)

// realtime reads the limits of event streams and of the change log, which says
// how long a client may be away and still go on where it was.
func (r *configReader) realtime(n ast.Node) {
	c, l := &r.Realtime, &r.ChangeLog
	var streams, perUser, perAddress, heartbeat, write, lifetime int64
	var rows, age int64
	r.object(n, object{
		"max_streams":       r.integer(&streams, 1, math.MaxInt32),
		"max_per_user":      r.integer(&perUser, 1, math.MaxInt32),
		"max_per_address":   r.integer(&perAddress, 1, math.MaxInt32),
		"heartbeat_sec":     r.integer(&heartbeat, 1, 30), // clients give up after 45, many proxies after 60
		"write_timeout_sec": r.integer(&write, 1, 3600),
		"max_lifetime_sec":  r.limit(&lifetime, math.MaxInt32),
		"change_log": func(n ast.Node) {
			r.object(n, object{
				"max_rows":    r.limit(&rows, math.MaxInt32),
				"max_bytes":   r.limit(&l.MaxBytes, math.MaxInt64),
				"max_age_sec": r.limit(&age, math.MaxInt32),
			})
		},
	})
	c.MaxStreams, c.MaxPerUser, c.MaxPerAddress = int(streams), int(perUser), int(perAddress)
	c.Heartbeat, c.WriteTimeout, c.MaxLifetime = seconds(heartbeat), seconds(write), seconds(lifetime)
	l.MaxRows, l.MaxAge = int(rows), seconds(age)
}

// limit reads a number up to most. 0 stands for no limit, which the library has
// as -1.
func (r *configReader) limit(to *int64, most int64) func(ast.Node) {
	return func(n ast.Node) {
		limit := int64(-1)
		r.integer(&limit, 0, most)(n)
		if limit == 0 {
			limit = -1
		}
		*to = limit
	}
}

// subscribable reports whether there is anything to subscribe to.
func (conf *config) subscribable() bool {
	return slices.ContainsFunc(conf.APIs, func(a records.API) bool { return a.Subscriptions })
}
