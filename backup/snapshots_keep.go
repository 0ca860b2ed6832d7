package backup

import (
	"time"
)

// clockSlack is how far in the future a snapshot may have been taken, or a trial restore been over,
// by a clock that was set back since.
const clockSlack = time.Minute

// surplus returns those of the snapshots, which are sorted newest first, that are not to be kept.
// taken is the one that was just made and always kept: by a clock that was set back it need not be
// the first. Those without a checksum are not ours: they neither count nor are they returned.
//
// Snapshots from the future, made while the clock was wrong, count among themselves, so that they
// are not in the way of those made since.
func (c SnapshotsConfig) surplus(list []Snapshot, taken Snapshot, now time.Time) []Snapshot {
	var present, future []Snapshot
	for _, s := range list {
		switch {
		case s.SHA256 == "":
		case s.Time.After(now.Add(clockSlack)):
			future = append(future, s)
		default:
			present = append(present, s)
		}
	}
	kept := map[string]bool{}
	c.keep(present, kept)
	c.keep(future, kept)

	var surplus []Snapshot
	total := taken.Bytes
	for _, s := range append(present, future...) {
		if s.Path == taken.Path {
			continue
		}
		if kept[s.Path] {
			total += s.Bytes
		}
		if !kept[s.Path] || c.MaxBytes > 0 && total > c.MaxBytes {
			surplus = append(surplus, s)
		}
	}
	return surplus
}

// keep marks what is kept of the snapshots, which are sorted newest first.
func (c SnapshotsConfig) keep(list []Snapshot, kept map[string]bool) {
	for _, s := range list[:min(c.KeepLast, len(list))] {
		kept[s.Path] = true
	}
	type period [2]int
	newestOfEach := func(number int, of func(time.Time) period) {
		var last period
		for _, s := range list {
			if number <= 0 {
				return
			}
			if p := of(s.Time.UTC()); p != last {
				last = p
				kept[s.Path] = true
				number--
			}
		}
	}
	newestOfEach(c.KeepDaily, func(t time.Time) period { return period{t.Year(), t.YearDay()} })
	newestOfEach(c.KeepWeekly, func(t time.Time) period {
		year, week := t.ISOWeek()
		return period{year, week}
	})
}
