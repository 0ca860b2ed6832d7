package result_test

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/bench/internal/result"
)

func TestNumbers(t *testing.T) {
	t.Parallel()
	var latencies []time.Duration
	for i := range 1000 {
		latencies = append(latencies, time.Duration(1000-i)*time.Microsecond)
	}
	got := result.Of(latencies, 2*time.Second)
	want := result.Numbers{Reqs: 1000, RPS: 500, P50: 501, P90: 901, P99: 991, P999: 1000, Max: 1000}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
