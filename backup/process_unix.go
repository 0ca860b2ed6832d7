//go:build unix

package backup

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps signals for the program's process group, such as those of a terminal, from the
// replicator, which has something to finish.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
