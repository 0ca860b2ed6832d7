package tlsauto

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// What the store says of failures is believed within bounds.
func TestDecodeRecordBounds(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for failures, want := range map[int]int{math.MinInt: 0, -1: 0, 7: 7, math.MaxInt: 1000} {
		data, err := json.Marshal(record{
			Failures: failures,
			At:       at,
			Next:     at.AddDate(1, 0, 0),
			Held:     map[string]time.Time{"a": at.AddDate(1, 0, 0), "b": at.Add(time.Hour)},
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := decodeRecord(data)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failures != want || !r.Next.Equal(at.Add(maxPause)) || !r.Held["a"].Equal(at.Add(maxRetryAfter)) || !r.Held["b"].Equal(at.Add(time.Hour)) {
			t.Errorf("%d failures: %+v", failures, r)
		}
	}
}

func TestNextIssuerOfAnyRecord(t *testing.T) {
	t.Parallel()
	m := &Manager{issuerIDs: []string{"a", "b", "c"}}
	for _, failures := range []int{math.MinInt, -1, 0, math.MaxInt} {
		if i, _ := m.nextIssuer(record{Failures: failures}, time.Now()); i < 0 || i > 2 {
			t.Errorf("%d failures: issuer %d", failures, i)
		}
	}
}

func TestObtainedIsStored(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"Obtained: 2026-01-02T03:04:05Z\n-----BEGIN": at,
		"Obtained: 2026-01-02T03:04:05Z":             at,
		"Obtained: yesterday\n":                      {},
		"2026-01-02T03:04:05Z\n":                     {},
		"-----BEGIN PRIVATE KEY-----\n":              {},
		"":                                           {},
	} {
		if got := decodeObtained([]byte(text)); !got.Equal(want) {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Whichever was obtained last is better, unless that is in a time to come.
func TestIsBetterByObtained(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	a, now := lived(90*day, 2*day)
	b, _ := lived(90*day, 0)
	b.tls.Leaf.NotBefore = b.tls.Leaf.NotBefore.Add(-time.Hour)
	for _, tt := range []struct {
		name string
		a, b time.Time
		want bool // a is better
	}{
		{"unknown", time.Time{}, time.Time{}, true},
		{"one is unknown", time.Time{}, now, true},
		{"later", now, now.Add(-time.Hour), true},
		{"earlier", now.Add(-time.Hour), now, false},
		{"at the same time", now, now, true},
		{"in a time to come", now.Add(-time.Hour), now.Add(time.Hour), true},
		{"after its end", now.Add(-time.Hour), now.Add(100 * day), true},
	} {
		a.obtained, b.obtained = tt.a, tt.b
		if got, other := isBetter(a, b, now), isBetter(b, a, now); got != tt.want || other == tt.want {
			t.Errorf("%s: %v, and the other %v", tt.name, got, other)
		}
	}
}

// What cannot begin, as Run has ended, is not under way for ever.
func TestDueWithoutRun(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Names: []string{"example.com"}, Issuers: []Issuer{nobody{}}, Store: NewMemoryStore()})
	if err != nil {
		t.Fatal(err)
	}
	m.doDue(time.Now())
	if m.managed[0].plan.busy || m.work.jobs != 0 {
		t.Errorf("busy: %v, %d jobs", m.managed[0].plan.busy, m.work.jobs)
	}
}
