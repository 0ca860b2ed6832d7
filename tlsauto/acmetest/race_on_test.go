//go:build race

package acmetest

// slowness is how much longer everything takes with the race detector.
const slowness = 5
