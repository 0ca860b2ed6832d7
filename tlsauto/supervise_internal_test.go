package tlsauto

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkDoDue is a look of the loop at 10,000 certificates on demand with nothing to do.
func BenchmarkDoDue(b *testing.B) {
	m, err := New(Config{
		OnDemand: func(context.Context, string) error { return nil },
		Issuers:  []Issuer{nobody{}},
		Store:    NewMemoryStore(),
	})
	if err != nil {
		b.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	m.work.requestsAt = later
	for i := range 10_000 {
		if err := m.admit(fmt.Sprintf("n%d.example", i)); err != nil {
			b.Fatal(err)
		}
		p := &m.managed[i].plan
		p.read, p.readAt, p.due = true, later, later
	}
	for b.Loop() {
		m.doDue(time.Now())
	}
}
