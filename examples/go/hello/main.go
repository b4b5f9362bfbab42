package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type payload struct {
	UpTo int `json:"up_to"`
}

func main() {
	in := payload{UpTo: 30}
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		fmt.Fprintln(os.Stderr, "the payload is not what this function expects:", err)
		os.Exit(1)
	}
	primes := []int{}
	for n := 2; n <= in.UpTo; n++ {
		if isPrime(n) {
			primes = append(primes, n)
		}
	}
	fmt.Fprintf(os.Stderr, "%d primes up to %d\n", len(primes), in.UpTo) // the log
	json.NewEncoder(os.Stdout).Encode(map[string]any{"primes": primes})  // the result
}

func isPrime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
