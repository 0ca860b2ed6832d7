//go:build !race

package acmetest

const slowness = 1
