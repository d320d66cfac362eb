package main

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// report prints the figures.
func report(fault string, o options, answers []answer, m moments, vitals []vital, p *program) {
	slices.SortFunc(answers, func(a, b answer) int { return a.began.Compare(b.began) })
	in := func(from, to time.Time, status ...int) (took []time.Duration) {
		for _, a := range answers {
			if !a.began.Before(from) && a.began.Before(to) && (len(status) == 0 || slices.Contains(status, a.status)) {
				took = append(took, a.took)
			}
		}
		slices.Sort(took)
		return took
	}
	const ok, refused = http.StatusOK, http.StatusServiceUnavailable
	down := m.began.Add(o.timeout + 200*time.Millisecond)
	fmt.Printf("\n%s: %d requests a second, StoreTimeout %v, pool %d, outage of %v\n", fault, o.rate, o.timeout, o.pool, m.lasted.Round(time.Millisecond))
	statuses := map[int]int{}
	for _, a := range answers {
		statuses[a.status]++
	}
	fmt.Printf("  answers in all, by status           %v\n", statuses)
	normal := in(m.began.Add(-o.normal/2), m.began, ok)
	fmt.Printf("  before it: 200 in                   median %v, p99 %v\n", at(normal, 50), at(normal, 99))
	early := in(m.began, down, ok)
	fmt.Printf("  first %v of it: 200s               %d\n", o.timeout, len(early))
	late := in(down, m.back, refused)
	fmt.Printf("  after that: 503 in                  median %v, p99 %v, slowest %v, of %d\n", at(late, 50), at(late, 99), at(late, 100), len(late))
	fmt.Printf("  dials during it                     %.1f a second on average\n", float64(m.dials)/m.lasted.Seconds())
	most := int64(0)
	for i := 1; i < len(vitals); i++ {
		if v := vitals[i]; v.at.After(m.began) && v.at.Before(m.back) {
			d := float64(v.dials-vitals[i-1].dials) / v.at.Sub(vitals[i-1].at).Seconds()
			most = max(most, int64(d+0.5))
		}
	}
	fmt.Printf("  ... in its worst second             %d\n", most)
	for _, path := range []string{"/read", "/save", "/login"} {
		first := time.Duration(-1)
		for _, a := range answers {
			if done := a.began.Add(a.took).Sub(m.back); a.path == path && a.status == ok && done >= 0 && (first < 0 || done < first) {
				first = done
			}
		}
		fmt.Printf("  first success after it, %-12s%v\n", path, first)
	}
	back := in(m.back, m.back.Add(time.Second), ok)
	fmt.Printf("  first second back: 200 in           median %v, p99 %v (%.1f of normal), of %d; 503s: %d\n", at(back, 50), at(back, 99),
		float64(at(back, 99))/float64(max(at(normal, 99), 1)), len(back), len(in(m.back, m.back.Add(time.Second), refused)))
	all := in(m.back, m.back.Add(time.Second))
	fmt.Printf("  ... all answers                     p99 %v\n", at(all, 99))
	settled := in(m.back.Add(2*time.Second), m.back.Add(time.Hour))
	fmt.Printf("  from 2 s on                         p99 %v, 503s: %d\n", at(settled, 99), len(in(m.back.Add(2*time.Second), m.back.Add(time.Hour), refused)))
	fmt.Printf("  store                               %+v\n", p.manager.Stats())
	fmt.Println("  second  goroutines  heap MB  dials/s")
	for i, v := range vitals {
		second := v.at.Sub(m.began).Seconds()
		if i == 0 || second < -2 || second > 8 && second < m.lasted.Seconds()-2 && i%10 != 0 {
			continue
		}
		fmt.Printf("  %6.1f  %10d  %7.1f  %7d\n", second, v.goroutines, float64(v.heap)/1e6, v.dials-vitals[i-1].dials)
	}
}

// at returns a percentile of sorted times.
func at(took []time.Duration, percent int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	return took[min(len(took)*percent/100, len(took)-1)].Round(time.Microsecond)
}
