package realtime

import (
	"testing"
	"time"
)

// TestDefaults: a client that takes nothing is cut within half a minute, and
// proxies with a timeout of a minute see something in time.
func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if c.WriteTimeout <= 0 || c.WriteTimeout > 30*time.Second {
		t.Errorf("WriteTimeout is %v", c.WriteTimeout)
	}
	if c.Heartbeat <= 0 || c.Heartbeat > 30*time.Second {
		t.Errorf("Heartbeat is %v", c.Heartbeat)
	}
	if c.MaxStreams <= 0 || c.MaxPerUser <= 0 || c.MaxPerAddress <= 0 || c.MaxLifetime <= 0 {
		t.Errorf("something is not bounded: %+v", c)
	}
}
