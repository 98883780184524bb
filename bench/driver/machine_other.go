//go:build !linux

package driver

func describe(*Machine, string) {}
