package realtime

import (
	"cmp"
	"slices"
	"time"
)

// A client's filter can be such that judging takes long. Nobody else waits for
// that: what filtered views take in a page is what they usually do and a moment
// more. Beyond it their members read the log for themselves, without being in
// the way of others who do, and for twenty times as long as it took this is so
// from the beginning, unless a filter is known to cost little.
const (
	cheap      = 100 * time.Microsecond // a change for a connection
	unknown    = 2 * cheap
	filterTime = 250 * time.Millisecond
	filterRows = 32 // at a time
	filterRest = 20
)

// filtered is what a [View] has that shows the part of the rows that a client
// asks for.
type filtered interface{ Filtered() bool }

func isFiltered(v View) bool {
	f, ok := v.(filtered)
	return ok && f.Filtered()
}

// task is a filtered crowd with the changes to judge for it.
type task struct {
	*crowd
	parts []tableChanges
	rows  int // that were judged
	took  time.Duration
	lost  bool // the view cannot tell
	late  bool // not all were judged
}

// parts returns the changes in parts of a few rows, with the breaks in the
// last.
func (t tableChanges) parts() (parts []tableChanges) {
	for len(t.rows) > filterRows {
		parts = append(parts, tableChanges{rows: t.rows[:filterRows], changes: t.changes[:filterRows]})
		t.rows, t.changes = t.rows[filterRows:], t.changes[filterRows:]
	}
	return append(parts, t)
}

// judgeFiltered judges for filtered crowds, the cheap ones first.
func (d *dispatcher) judgeFiltered(out *outbox, tasks []task) error {
	begin := time.Now()
	end := begin.Add(filterTime)
	slices.SortFunc(tasks, func(a, b task) int { return cmp.Compare(a.cost, b.cost) })
	known := 0 // are cheap
	for i := range tasks {
		t := &tasks[i]
		if t.cost > cheap {
			t.late = begin.Before(d.rest)
			continue
		}
		known++
		for _, part := range t.parts {
			end = end.Add(2 * t.cost * time.Duration(len(part.rows)*t.conns))
		}
	}
	for _, some := range [][]task{tasks[:known], tasks[known:]} {
		if err := d.judgeParts(out, some, end); err != nil {
			return err
		}
	}
	for i := range tasks {
		tasks[i].note(out)
	}
	if now := time.Now(); now.After(end) {
		d.rest = now.Add(filterRest * now.Sub(begin))
	}
	return nil
}

// judgeParts judges part by part for all tasks: so the images of rows are
// loaded once.
func (d *dispatcher) judgeParts(out *outbox, tasks []task, end time.Time) error {
	for part, more := 0, true; more; part++ {
		more = false
		for i := range tasks {
			t := &tasks[i]
			if part >= len(t.parts) {
				continue
			}
			more = true
			if err := d.judgePart(out, t, t.parts[part], end); err != nil {
				return err
			}
		}
	}
	return nil
}

// judgePart judges a part of the changes of t, if it is not too late.
func (d *dispatcher) judgePart(out *outbox, t *task, part tableChanges, end time.Time) error {
	begin := time.Now()
	t.late = t.late || !t.lost && begin.After(end)
	if t.late || t.lost {
		return nil
	}
	ok, err := d.judgeCrowd(out, t.crowd, part)
	t.lost = !ok
	t.took += time.Since(begin)
	t.rows += len(part.rows)
	return err
}

// note keeps what t has cost for the next time.
func (t *task) note(out *outbox) {
	if t.rows > 0 {
		// A few rows cost more than their share. And once may have been an
		// accident, but not if it is far more than before.
		now := t.took / time.Duration((t.rows+8)*t.conns)
		t.cost = min(now, (7*t.cost+now)/8)
	}
	if t.late {
		t.cost = max(t.cost, unknown)
		out.late = append(out.late, t.crowd)
	}
	for _, a := range t.concerned() {
		a.late.Store(t.late)
	}
}
