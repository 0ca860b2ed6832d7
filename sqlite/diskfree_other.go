//go:build !(linux || darwin || freebsd)

package sqlite

func lowOnSpace(string) bool { return false }
