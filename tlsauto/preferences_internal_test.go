package tlsauto

import (
	"slices"
	"strconv"
	"testing"
)

func TestPreferencesAreBounded(t *testing.T) {
	t.Parallel()
	var p preferences
	standard, other := []string{"a", "b"}, []string{"b", "a"}
	for i := range maxPreferences + 10 {
		names := []string{strconv.Itoa(i), "x"}
		p.set(names, other, standard)
		if !slices.Equal(p.of(names, standard), other) {
			t.Fatalf("what was set for %s is not there", names)
		}
	}
	if len(p.orders) != maxPreferences {
		t.Errorf("%d are remembered", len(p.orders))
	}
	var small preferences
	names := []string{"example.com"}
	small.set(names, other, standard)
	small.set(names, standard, standard)
	if len(small.orders) != 0 || !slices.Equal(small.of(names, standard), standard) {
		t.Error("what is standard is remembered")
	}
}
