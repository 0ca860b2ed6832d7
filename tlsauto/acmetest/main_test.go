package acmetest

import (
	"flag"
	"os"
	"strconv"
	"testing"
)

func TestMain(m *testing.M) {
	// Pebble reads these when its objects are made.
	setenv("PEBBLE_VA_NOSLEEP", "1")      // else it pauses for seconds before each validation
	setenv("PEBBLE_WFE_NONCEREJECT", "0") // else it refuses good nonces at random; see refuseNonces
	setenv("PEBBLE_AUTHZREUSE", "0")      // else whether a challenge is made is left to chance

	// The tests wait most of the time: more of them at once than there are processors do no harm.
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(16/slowness)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func setenv(name, value string) {
	if err := os.Setenv(name, value); err != nil {
		panic(err)
	}
}

// long is for tests that wait for outages, expiry or several renewals.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes longer than a few seconds: it waits for certificates to expire or to be renewed")
	}
	t.Parallel()
}
