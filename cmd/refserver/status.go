package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// A statusCommand prints what a process told last, in a file.
type statusCommand struct {
	where
	JSON bool `name:"json" help:"Print everything that is known as JSON."`
}

// A told is what a process tells in a file.
type told interface {
	print(to io.Writer) error

	// gone says why nobody stands behind it any more, or is nil.
	gone(now time.Time) error

	// alarms are what somebody should look after.
	alarms(now time.Time) error
}

// show prints what the file of a data directory has, and returns what is wrong with it. missing is the error, with the
// directory, if there is no file.
func (c *statusCommand) show(p *program, file func(*config) string, what told, missing string) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	err = readSmall(file(conf), what)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(missing, conf.DataDir)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(p, what)
	} else {
		err = what.print(p.stdout)
	}
	now := time.Now()
	return errors.Join(err, what.gone(now), what.alarms(now))
}

// silent says why a process does not stand behind what it told at a time, or is nil.
func silent(who string, at time.Time, ended bool, goodFor time.Duration, now time.Time) error {
	switch age := now.Sub(at); {
	case ended:
		return fmt.Errorf("the %s is not running: it ended at %s", who, moment(at))
	case age > goodFor:
		return fmt.Errorf("the %s is not running, or hangs: it has told nothing since %s, for %s", who, moment(at), age.Round(time.Second))
	case age < -goodFor:
		return fmt.Errorf("the status of the %s is from the future, %s: one of the clocks is wrong", who, moment(at))
	}
	return nil
}
