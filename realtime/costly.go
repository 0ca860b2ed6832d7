package realtime

import (
	"cmp"
	"slices"
	"time"
)

// A client's filter can be such that judging takes long. So filtered views
// have a feed of their own, where they hold up nobody but each other. There,
// what is known to cost little is always judged, and all the rest has a moment
// per page. Whoever is left out reads the log instead, without being in the
// way of others who do. A filter that has taken long rests for twenty times as
// long as it took.
const (
	cheap      = 100 * time.Microsecond // a change for a connection
	filterTime = 250 * time.Millisecond
	filterRows = 32 // at a time
	filterRest = 20
)

// task is a filtered crowd with the changes to judge for it.
type task struct {
	*crowd
	changes tableChanges
}

// judgeFiltered judges for filtered crowds, the cheap ones first.
func (d *dispatcher) judgeFiltered(out *outbox, tasks []task) error {
	slices.SortFunc(tasks, func(a, b task) int { return cmp.Compare(a.cost, b.cost) })
	var end time.Time // begins behind the cheap ones
	for _, t := range tasks {
		begin := time.Now()
		if end.IsZero() && t.cost > cheap {
			end = begin.Add(filterTime)
		}
		late := t.cost > cheap && (begin.After(end) || begin.Before(t.rest))
		if late {
			out.late = append(out.late, t.crowd)
		} else {
			if err := d.judgeCrowd(out, t.crowd, t.changes); err != nil {
				return err
			}
			took := time.Since(begin)
			// A few rows cost more than their share.
			t.cost = took / time.Duration((len(t.changes.rows)+8)*t.conns)
			if t.cost > cheap {
				t.rest = begin.Add(filterRest * took)
			}
		}
		for _, a := range t.concerned() {
			a.costly.Store(late || t.cost > cheap)
		}
	}
	return nil
}
