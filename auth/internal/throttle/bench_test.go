package throttle_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
)

// benchChecks are those of a sign-in: account, address, and all.
func benchChecks(i int64) []throttle.Check {
	limit := throttle.Limit{Events: 1_000_000_000, Per: time.Hour}
	return []throttle.Check{
		{Scope: "account", Subject: fmt.Sprint(i % 1000), Limit: limit},
		{Scope: "address", Subject: fmt.Sprint(i % 500), Limit: limit},
		{Scope: "global", Limit: limit},
	}
}

func BenchmarkPeek(b *testing.B) {
	s, db, _ := newStore(b)
	for i := range int64(1000) {
		fail(b, db, s, 1, benchChecks(i)...)
	}
	i := int64(0)
	for b.Loop() {
		i++
		if peek(b, s, benchChecks(i)...) != 0 {
			b.Fatal("refused")
		}
	}
}

func BenchmarkTake(b *testing.B) {
	s, _, _ := newStore(b)
	i := int64(0)
	for b.Loop() {
		i++
		take(b, s, benchChecks(i)...)
	}
}

func BenchmarkTakeParallel(b *testing.B) {
	s, _, _ := newStore(b)
	var i atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Take(bg, benchChecks(i.Add(1))...); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkTakeRefused(b *testing.B) {
	s, db, _ := newStore(b)
	c := check("a", throttle.Limit{Events: 1, Per: time.Hour})
	fail(b, db, s, 1, c)
	for b.Loop() {
		if take(b, s, c) == 0 {
			b.Fatal("allowed")
		}
	}
}

// BenchmarkPrune deletes 200,000 rows, 500 by every write.
func BenchmarkPrune(b *testing.B) {
	const rows = 200_000
	s, db, c := newStore(b)
	for b.Loop() {
		b.StopTimer()
		spray(b, db, s, rows, throttle.Limit{Events: 1, Per: time.Minute})
		c.add(time.Hour)
		b.StartTimer()
		if deleted := prune(b, s); deleted != rows {
			b.Fatal(deleted)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/(rows/500), "µs/write")
}
