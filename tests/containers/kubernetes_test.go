package containers

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// manifests are what the files say, one of each kind.
type manifests struct {
	job        batchv1.Job
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
}

// parseManifests decodes strictly: a field that Kubernetes does not know is an error.
func parseManifests(text string) (m manifests, err error) {
	for _, doc := range regexp.MustCompile(`(?m)^---\n`).Split(text, -1) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			return m, err
		}
		into, ok := map[string]any{
			"batch/v1 Job": &m.job, "apps/v1 Deployment": &m.deployment, "v1 Service": &m.service,
			"policy/v1 PodDisruptionBudget": &m.budget,
		}[kind.APIVersion+" "+kind.Kind]
		if !ok {
			return m, fmt.Errorf("got kind %s %s, which this test does not know", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			return m, fmt.Errorf("%s: %w", kind.Kind, err)
		}
	}
	return m, nil
}

// faults says what is wrong with manifests that are valid. secrets are the keys of
// each Secret that the README makes.
func (m manifests) faults(secrets map[string][]string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	d := m.deployment.Spec
	pod := labels.Set(d.Template.Labels)
	for name, selector := range map[string]*metav1.LabelSelector{"deployment": d.Selector, "budget": m.budget.Spec.Selector, "spread": d.Template.Spec.TopologySpreadConstraints[0].LabelSelector} {
		if s, err := metav1.LabelSelectorAsSelector(selector); err != nil || s.Empty() || !s.Matches(pod) {
			fault("the selector of the %s does not select the pods", name)
		}
	}
	if s := labels.SelectorFromSet(m.service.Spec.Selector); s.Empty() || !s.Matches(pod) || s.Matches(labels.Set(m.job.Spec.Template.Labels)) {
		fault("the selector of the service does not select the pods, and them alone")
	}
	replicas := 1
	if d.Replicas != nil {
		replicas = int(*d.Replicas)
	}
	if replicas < 2 {
		fault("replicas: got %d, want 2 or more", replicas)
	}
	if most := m.budget.Spec.MaxUnavailable; most == nil || most.IntValue() < 1 || most.IntValue() >= replicas {
		fault("the budget lets all pods be taken, or none")
	}
	if u := d.Strategy.RollingUpdate; d.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || u == nil || u.MaxUnavailable.IntValue() != 0 || u.MaxSurge.IntValue() < 1 {
		fault("an update takes a pod away before the next one is there")
	}
	faults = append(faults, podFaults("app", d.Template.Spec, secrets)...)
	faults = append(faults, podFaults("job", m.job.Spec.Template.Spec, secrets)...)
	faults = append(faults, m.probeFaults()...)
	if p := m.job.Spec.Template.Spec.RestartPolicy; p != corev1.RestartPolicyNever && p != corev1.RestartPolicyOnFailure {
		fault("the job's restartPolicy %q is refused", p)
	}
	return faults
}

// probeFaults looks at ports, probes and the end of a pod.
func (m manifests) probeFaults() (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	pod := m.deployment.Spec.Template.Spec
	c := pod.Containers[0]
	named := func(port string) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port })
	}
	if port := m.service.Spec.Ports[0].TargetPort.String(); !named(port) {
		fault("the service's port %s is none of the container's", port)
	}
	if env := variables(c); len(c.Ports) == 0 || env["LISTEN"] != fmt.Sprint(":", c.Ports[0].ContainerPort) {
		fault("LISTEN is not the container's port")
	}
	for name, p := range map[string]struct {
		probe *corev1.Probe
		path  string
	}{"livenessProbe": {c.LivenessProbe, "/livez"}, "readinessProbe": {c.ReadinessProbe, "/readyz"}, "startupProbe": {c.StartupProbe, "/readyz"}} {
		switch {
		case p.probe == nil || p.probe.HTTPGet == nil:
			fault("%s is no GET", name)
		case p.probe.HTTPGet.Path != p.path:
			fault("%s asks for %s, want %s", name, p.probe.HTTPGet.Path, p.path)
		case !named(p.probe.HTTPGet.Port.String()):
			fault("%s: port %s is none of the container's", name, p.probe.HTTPGet.Port.String())
		}
	}
	if p := c.StartupProbe; p != nil && p.PeriodSeconds*p.FailureThreshold < 40 {
		fault("startupProbe gives up before the program does, which waits 30 s for the database")
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
		fault("no preStop that needs no program in the image")
		return faults
	}
	if pod.TerminationGracePeriodSeconds != nil {
		faults = append(faults, graceFaults("app", variables(c), time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second,
			time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second)...)
	} else {
		fault("no terminationGracePeriodSeconds")
	}
	return faults
}

// podFaults looks at what a pod may do, and at where its secrets come from.
func podFaults(name string, pod corev1.PodSpec, secrets map[string][]string) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, name+": "+fmt.Sprintf(format, args...))
	}
	c, s := pod.Containers[0], pod.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile == nil {
		fault("may run as root, or without seccomp")
	}
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
		fault("may write to its file system, or more")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		fault("has a token of Kubernetes")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		fault("no resources")
	}
	if !regexp.MustCompile(`^[^:]+:[^:]+$`).MatchString(c.Image) || strings.HasSuffix(c.Image, ":latest") {
		fault("the image %s has no version", c.Image)
	}
	files := map[string]bool{}
	for _, v := range pod.Volumes {
		if v.Secret == nil {
			continue
		}
		i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
		if i < 0 {
			fault("volume %s is not mounted", v.Name)
			continue
		}
		if s == nil || s.FSGroup == nil || v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o040 == 0 || *v.Secret.DefaultMode&0o007 != 0 {
			fault("volume %s cannot be read by the pod's group, or by others too", v.Name)
		}
		for _, item := range v.Secret.Items {
			if !slices.Contains(secrets[v.Secret.SecretName], item.Key) {
				fault("the README makes no Secret %s with the key %s", v.Secret.SecretName, item.Key)
			}
			files[c.VolumeMounts[i].MountPath+"/"+item.Path] = true
		}
	}
	for variable, value := range variables(c) {
		switch {
		case secretWords.MatchString(variable) && !strings.HasSuffix(variable, "_FILE"), regexp.MustCompile(`://[^@/]*:[^@/]*@`).MatchString(value):
			fault("%s holds a secret", variable)
		case strings.HasPrefix(value, "/run/secrets/") && !files[value]:
			fault("%s names %s, which is not mounted", variable, value)
		}
	}
	return faults
}

func variables(c corev1.Container) map[string]string {
	env := map[string]string{}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	return env
}

// readmeSecrets returns the Secrets that the README's commands make, and their keys.
func readmeSecrets(t *testing.T) map[string][]string {
	t.Helper()
	secrets := map[string][]string{}
	text := strings.ReplaceAll(read(t, folder+"/README.md"), "\\\n", " ")
	for _, m := range regexp.MustCompile(`kubectl create secret generic (\S+)(.*)`).FindAllStringSubmatch(text, -1) {
		for _, file := range regexp.MustCompile(`--from-file=\S*/secrets/(\S+)`).FindAllStringSubmatch(m[2], -1) {
			secrets[m[1]] = append(secrets[m[1]], file[1])
		}
	}
	if len(secrets) == 0 {
		t.Fatal("the README makes no Secret")
	}
	return secrets
}

// A Job that has run does not do so again, and takes no other image: the README's
// commands, which go before each deployment, delete it first.
func TestTheJobRunsBeforeEachDeployment(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`kind: Job\nmetadata:\n  name: (\S+)\n`).FindStringSubmatch(read(t, folder+"/kubernetes/schema.yaml"))
	if name == nil {
		t.Fatal("schema.yaml has no Job with a name")
	}
	before, _, ok := strings.Cut(read(t, folder+"/README.md"), "kubectl apply -f examples/containers/kubernetes/schema.yaml\n")
	if !ok || !strings.Contains(before, "kubectl delete job "+name[1]+" --ignore-not-found") {
		t.Errorf("the README applies the Job without deleting the last one: want kubectl delete job %s --ignore-not-found", name[1])
	}
}

// The manifests are ones that Kubernetes takes, they fit each other and the
// program, and each rule finds its fault.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	text := read(t, folder+"/kubernetes/schema.yaml") + "---\n" + read(t, folder+"/kubernetes/app.yaml")
	secrets := readmeSecrets(t)
	check := func(text string) string {
		m, err := parseManifests(text)
		if err != nil {
			return err.Error()
		}
		return strings.Join(m.faults(secrets), "\n")
	}
	if got := check(text); got != "" {
		t.Fatal(got)
	}
	for _, tt := range []struct{ name, old, replaced, want string }{
		{"an unknown field", "maxUnavailable: 0", "maxUnavailabel: 0", "maxUnavailabel"},
		{"a field of another type", "replicas: 2", "replicas: two", "replicas"},
		{"an unknown kind", "kind: Service\n", "kind: Servise\n", "does not know"},
		{"one pod", "replicas: 2", "replicas: 1", "2 or more"},
		{"pods of others", "  selector:\n    matchLabels: {app: session-app}\n  strategy", "  selector:\n    matchLabels: {app: other}\n  strategy", "selector of the deployment"},
		{"a service of nobody", "selector: {app: session-app}", "selector: {app: sesion-app}", "selector of the service"},
		{"a budget of nobody", "maxUnavailable: 1\n  selector:\n    matchLabels: {app: session-app}", "maxUnavailable: 1\n  selector:\n    matchLabels: {app: other}", "selector of the budget"},
		{"a budget for nothing", "  maxUnavailable: 1", "  maxUnavailable: 2", "all pods"},
		{"an update with a gap", "maxUnavailable: 0", "maxUnavailable: 1", "before the next"},
		{"another port", "targetPort: http", "targetPort: web", "the service's port"},
		{"another address", `value: ":8080"`, `value: ":8081"`, "LISTEN"},
		{"a probe at another port", "httpGet: {path: /livez, port: http}", "httpGet: {path: /livez, port: web}", "none of the container's"},
		{"a probe that uses sessions", "httpGet: {path: /livez, port: http}", "httpGet: {path: /, port: http}", "want /livez"},
		{"alive only while it is ready", "httpGet: {path: /livez, port: http}", "httpGet: {path: /readyz, port: http}", "want /livez"},
		{"no time to start", "failureThreshold: 30", "failureThreshold: 3", "gives up"},
		{"no preStop", "            preStop:\n              sleep: {seconds: 5}\n", "            postStart:\n              sleep: {seconds: 5}\n", "no preStop"},
		{"a preStop that needs a shell", "sleep: {seconds: 5}", "exec: {command: [sleep, '5']}", "no preStop"},
		{"killed too early", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 20", "is killed after"},
		{"root", "runAsNonRoot: true", "runAsNonRoot: false", "as root"},
		{"a file system to write to", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write"},
		{"a token of Kubernetes", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "has a token"},
		{"no bounds", "limits: {memory: 256Mi}", "limits: {}", "no resources"},
		{"the newest of all", "session-app:1", "session-app:latest", "no version"},
		{"a key that nobody makes", "{key: session_secret, path", "{key: secret, path", "makes no Secret"},
		{"a Secret that nobody makes", "secretName: session-owner", "secretName: session", "makes no Secret"},
		{"the secret for all to read", "defaultMode: 0440", "defaultMode: 0444", "by others too"},
		{"the secret for root to read", "defaultMode: 0440", "defaultMode: 0400", "cannot be read"},
		{"a file that is not there", "value: /run/secrets/app/app_pgpass", "value: /run/secrets/app/pgpass", "not mounted"},
		{"a password in the environment", "shop_app@postgres", "shop_app:hush@postgres", "holds a secret"},
	} {
		broken := strings.Replace(text, tt.old, tt.replaced, 1)
		if got := check(broken); broken == text || !strings.Contains(got, tt.want) {
			t.Errorf("%s (changed: %t): got %q, want %q", tt.name, broken != text, got, tt.want)
		}
	}
	if bytes.Contains([]byte(text), []byte("kind: Secret")) {
		t.Error("a Secret is in the repository")
	}
}
