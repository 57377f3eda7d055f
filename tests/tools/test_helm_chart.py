"""Promises of `deploy/helm`: Helm renders the chart, Kubernetes' schemas accept it, and the pages say what it does."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from arcface_api import __version__
from arcface_api.api.metrics import Metrics
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings, read_settings
from authority import Authority
from serving import Service

helm = pytest.importorskip("helm_python", reason="needs helm-python-sdk, which has no wheel for this system")
pytestmark = pytest.mark.once  # Helm decides

ROOT = Path(__file__).parents[2]
CHART, PROMETHEUS = ROOT / "deploy" / "helm" / "arcface-api", ROOT / "deploy" / "prometheus"
ADAPTER = ROOT / "deploy" / "helm" / "prometheus-adapter.yaml"
PAGE, OPERATIONS = ROOT / "docs" / "kubernetes.md", ROOT / "docs" / "operations.md"
ACCEPTED = {"pack": {"acceptLicense": "antelopev2"}}
FILES: dict[str, dict[str, Any]] = {"values.yaml": {}, "cpu.yaml": ACCEPTED, "cuda.yaml": {}, "everything.yaml": {}}
"""Of the chart, each with the values that it needs besides."""
KUBERNETES = ("1.27", "1.30", "1.34", "1.37")
RELEASE = "face"
TLS_PAGE = ROOT / "docs" / "tls.md"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs Prometheus (Debian: apt-get install prometheus)"
)

Values = dict[str, Any]
Manifests = dict[str, dict[str, Any]]


def values_of(file: str | Path, over: Mapping[str, Any] | None = None) -> Values:
    """The values of a file of the chart, and others over them."""
    values: Values = helm.values_from_yaml((CHART / file).read_text())
    return merged(values, over or {})


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    both = dict(under)
    for key, value in over.items():
        both[key] = merged(both.get(key) or {}, value) if isinstance(value, Mapping) else value
    return both


def rendered(values: Values, chart: Path = CHART) -> Manifests:
    """The manifests by kind, as `helm install` makes them."""
    with helm.Chart.load(chart) as loaded:
        texts = loaded.render(values, name=RELEASE, namespace="photos")
    notes = next(text for name, text in texts.items() if name.endswith("NOTES.txt"))
    manifests = [helm.values_from_yaml(text) for name, text in texts.items() if name.endswith(".yaml") and text.strip()]
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    assert len(by_kind) == len(manifests)
    return by_kind | {"notes": {"text": notes}}


def refusal(values: Values) -> str:
    """What Helm says when it refuses values."""
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    return str(refused.value)


def pod(manifests: Manifests) -> dict[str, Any]:
    spec: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(manifests: Manifests) -> dict[str, Any]:
    (only,) = pod(manifests)["containers"]
    assert isinstance(only, dict)
    return only


def environment(manifests: Manifests) -> dict[str, str]:
    """The variables of the service that are not from a Secret."""
    return {entry["name"]: entry["value"] for entry in container(manifests)["env"] if "value" in entry}


@pytest.fixture(params=FILES)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return rendered(values_of(request.param, FILES[request.param]))


@pytest.fixture
def everything() -> Manifests:
    return rendered(values_of("everything.yaml"))


# ── Helm and Kubernetes accept it ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", FILES)
def test_lint_finds_nothing(file: str) -> None:
    report = helm.lint(CHART, values_of(file, FILES[file]), strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def accepts(manifest: dict[str, Any]) -> None:
    """Validate one manifest against Kubernetes' schemas, or the operator's."""
    if manifest["kind"] in OPERATOR:
        jsonschema.validate(manifest["spec"], OPERATOR[manifest["kind"]])
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def strictly(required: str = "", **properties: Any) -> dict[str, Any]:
    known = {"type": "object", "additionalProperties": False, "properties": properties}
    return known | {"required": required.split()}


TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
OPERATOR = {  # the parts in use of the Prometheus Operator's API reference
    "ServiceMonitor": strictly(
        "selector endpoints",
        selector=strictly("matchLabels", matchLabels=TEXTS),
        endpoints={
            "type": "array",
            "items": strictly(
                "port",
                port=TEXT,
                path=TEXT,
                interval={"type": "string", "pattern": r"^\d+(ms|s|m)$"},
                scheme={"enum": ["http", "https"]},
                tlsConfig=strictly(
                    serverName=TEXT,
                    ca=strictly(secret=strictly("name key", name=TEXT, key=TEXT)),
                    cert=strictly(secret=strictly("name key", name=TEXT, key=TEXT)),
                    keySecret=strictly("name key", name=TEXT, key=TEXT),
                ),
                authorization=strictly(
                    type=TEXT, credentials=strictly("key", key=TEXT, name=TEXT, optional={"type": "boolean"})
                ),
                relabelings={
                    "type": "array",
                    "items": strictly(
                        sourceLabels={"type": "array", "items": TEXT}, targetLabel=TEXT, replacement=TEXT
                    ),
                },
            ),
        },
    ),
    "PrometheusRule": strictly(
        "groups",
        groups={
            "type": "array",
            "minItems": 2,
            "items": strictly(
                "name rules",
                name=TEXT,
                rules={
                    "type": "array",
                    "items": {
                        "oneOf": [
                            strictly("record expr", record=TEXT, expr=TEXT),
                            strictly(
                                "alert expr for labels annotations",
                                **{"alert": TEXT, "expr": TEXT, "for": TEXT, "labels": TEXTS, "annotations": TEXTS},
                            ),
                        ]
                    },
                },
            ),
        },
    ),
}


def test_schemas_accept_every_manifest(manifests: Manifests) -> None:
    for kind in manifests.keys() - {"notes"}:
        accepts(manifests[kind])


def test_everything_makes_every_template(everything: Manifests) -> None:
    with helm.Chart.load(CHART) as chart:
        templates = [each["name"] for each in chart.templates if each["name"].endswith(".yaml")]
    assert len(everything) == len(templates) + 1  # and the notes


def test_an_archive_of_the_chart_is_whole(tmp_path: Path, everything: Manifests) -> None:
    archive = helm.package(CHART, destination=tmp_path)
    assert rendered(values_of("everything.yaml"), Path(archive)) == everything


def test_parts_select_the_pods_and_nothing_else(everything: Manifests) -> None:
    labels = everything["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        everything["Service"]["spec"]["selector"],
        everything["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(everything[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")),
    ]
    for selector in selectors:
        assert selector.items() <= labels
        assert not selector.items() <= everything["Pod"]["metadata"]["labels"].items()
    monitored = everything["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert monitored <= everything["Service"]["metadata"]["labels"].items()
    assert everything["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": everything["Deployment"]["metadata"]["name"],
    }


# ── it is what the documentation says ──────────────────────────────────────────────────────────────────────────────


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_probes_are_those_of_the_documentation(manifests: Manifests) -> None:
    (stated,) = [helm.values_from_yaml(text) for text in blocks(OPERATIONS, "yaml") if "livenessProbe" in text]
    assert {name: value for name, value in container(manifests).items() if name.endswith("Probe")} == stated


@pytest.mark.parametrize(("file", "row"), [("values.yaml", "open pack"), ("cpu.yaml", "antelopev2")])
def test_memory_is_that_of_the_documentation(file: str, row: str) -> None:
    (number, unit) = re.findall(rf"^\| {row}.* \| (\d+) ([MG])B \|$", OPERATIONS.read_text(), re.MULTILINE)[0]
    resources = container(rendered(values_of(file, FILES[file])))["resources"]
    assert {resources[kind]["memory"] for kind in ("requests", "limits")} == {f"{number}{unit}"}


def test_image_is_that_of_the_package(manifests: Manifests) -> None:
    is_cuda = "nvidia.com/gpu" in container(manifests)["resources"]["limits"]
    images = {each["image"] for each in containers(manifests)}
    assert images == {f"arcface-api:{__version__}{'-cuda' if is_cuda else ''}"}


def test_an_image_of_ones_own_has_its_own_tag() -> None:
    image = {"repository": "registry.example/face", "tag": "7"}
    assert container(rendered({"image": image}))["image"] == "registry.example/face:7"


def helm_commands() -> list[str]:
    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    lines += [line.lstrip("# ") for line in (CHART / "cpu.yaml").read_text().splitlines()]
    return [line for line in lines if line.startswith(("helm install", "helm upgrade"))]


@pytest.mark.parametrize("command", helm_commands())
def test_commands_of_the_page_render(command: str) -> None:
    words, values = iter(shlex.split(command)), Values()
    for word in words:
        if word == "-f":
            values = merged(values, helm.values_from_yaml((ROOT / next(words)).read_text()))
        elif word == "--set":
            values = merged(values, helm.parse_set_string(next(words)))
    if "prometheus-community/prometheus-adapter" in command:  # another chart, whose values the adapter's test looks at
        assert values["rules"]["custom"]
    else:
        assert "deploy/helm/arcface-api" in command
        rendered(values)


def test_commands_of_the_page_are_found() -> None:
    assert len(helm_commands()) > 5


@pytest.mark.parametrize("block", [*blocks(PAGE, "yaml"), *blocks(TLS_PAGE, "yaml")])
def test_examples_of_the_page_are_accepted(block: str) -> None:
    if "kind:" in block:
        for document in block.split("\n---\n"):
            accepts(helm.values_from_yaml(document))
    else:
        rendered(helm.values_from_yaml(block))


def test_every_value_is_described_and_known_to_the_schema() -> None:
    with helm.Chart.load(CHART) as chart:
        schema, defaults = chart.schema, chart.values

    def compare(known: Mapping[str, Any], described: Mapping[str, Any]) -> None:
        assert known.keys() - {"global", "enabled"} == described.keys() - {"enabled"}
        for key, part in known.items():
            if "properties" in part:
                compare(part["properties"], described[key])

    assert schema is not None
    compare(schema["properties"], defaults)


# ── settings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_become_those_of_the_service(everything: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(everything)
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert {name for name in variables if name.startswith(ENVIRONMENT_PREFIX)} <= known
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stated = values_of("everything.yaml")["settings"]
    settings = read_settings().model_dump()
    assert settings["pack"] == "auraface"
    assert {name: settings[name] for name in stated} == stated


def test_every_setting_can_be_set_but_those_of_the_chart() -> None:
    with helm.Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    allowed = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    chart_decides = {"accept_license", "cache_dir", "host", "models_dir", "pack", "pack_mirror", "port", "pull"}
    chart_decides |= {"tls_certificate_file", "tls_client_ca_file", "tls_key_file"}
    assert allowed == Settings.model_fields.keys() - chart_decides


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"replicas": 2}, "'replicas' not allowed"),
        ({"pack": {"acceptLicence": "antelopev2"}}, "'acceptLicence' not allowed"),
        ({"settings": {"aling": "auto"}}, "'aling'"),
        ({"settings": {"aling": "auto"}}, "'align'"),  # the names that are allowed
        ({"autoscaling": {"metric": "queue"}}, "'lanesBusy'"),
        ({"pack": {"mirror": "http://mirror.example"}}, "https"),
        ({"networkPolicy": {"ingressFrom": []}}, "/networkPolicy/ingressFrom"),  # Kubernetes: everybody
    ],
)
def test_what_is_misspelt_is_refused_by_name(values: Values, names: str) -> None:
    assert names in refusal(values)


def test_api_keys_come_from_a_secret_whose_changes_are_seen() -> None:
    manifests = rendered({"auth": {"existingSecret": "face-keys"}})
    file = Path(environment(manifests)["ARCFACE_API_KEYS_FILE"])
    (mount,) = [each for each in container(manifests)["volumeMounts"] if each["name"] == "auth"]
    assert Path(mount["mountPath"]) == file.parent, "Kubernetes never changes a file that is mounted by itself"
    assert "subPath" not in mount
    (volume,) = [each for each in pod(manifests)["volumes"] if each["name"] == "auth"]
    assert volume["secret"]["secretName"] == "face-keys"
    assert volume["secret"]["items"] == [{"key": "keys", "path": file.name}]
    assert volume["secret"]["defaultMode"] == 0o440
    assert '-H "Authorization: Bearer $KEY"' in manifests["notes"]["text"]
    assert "ARCFACE_API_KEYS_FILE" not in environment(rendered({}))
    assert "Authorization" not in rendered({})["notes"]["text"]


def test_a_setting_can_be_taken_back() -> None:
    assert environment(rendered({"settings": {"align": None}})) == {"ARCFACE_PACK": "open"}
    assert rendered({"settings": None}) == rendered({})


def test_a_parent_chart_can_contain_it() -> None:
    rendered({"enabled": True, "global": {"anything": 1}})


# ── packs and volumes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_downloaded_and_no_licence_accepted_by_default() -> None:
    manifests = rendered({})
    assert environment(manifests) == {"ARCFACE_PACK": "open"}
    assert "initContainers" not in pod(manifests)
    for file in FILES.keys() - {"everything.yaml"}:
        assert not values_of(file).get("pack", {}).get("acceptLicense")


def test_another_pack_needs_its_licence_or_a_place() -> None:
    said = refusal(values_of("cpu.yaml"))
    for way in ("pack.acceptLicense=antelopev2", "models.existingClaim", "pack.inImage=true", "pack.name=open"):
        assert way in said
    assert '"auraface"' in refusal(values_of("cpu.yaml", {"pack": {"acceptLicense": "auraface"}}))
    for place in ({"pack": {"inImage": True}}, {"models": {"existingClaim": "packs"}}):
        assert "initContainers" not in pod(rendered(values_of("cpu.yaml", place)))


def test_accepted_pack_is_pulled_before_the_service_starts_which_pulls_nothing() -> None:
    manifests = rendered(values_of("cpu.yaml", merged(ACCEPTED, {"pack": {"mirror": "https://mirror.example"}})))
    (pull,) = pod(manifests)["initContainers"]
    assert pull["args"] == ["packs", "pull", "antelopev2", "--accept-license"]
    assert {"name": "ARCFACE_PACK_MIRROR", "value": "https://mirror.example"} in pull["env"]
    assert pull["volumeMounts"] == container(manifests)["volumeMounts"]
    assert environment(manifests) == {"ARCFACE_PACK": "antelopev2"}
    assert "downloads antelopev2" in manifests["notes"]["text"]


def test_a_read_only_volume_leaves_compiled_models_in_the_pod() -> None:
    models = {"existingClaim": "packs", "readOnly": True}
    manifests = rendered(values_of("cpu.yaml", {"models": models}))
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(manifests)["volumeMounts"]}
    assert mounts == {"/models": True, "/tmp": False, "/cache": False}
    assert environment(manifests)["ARCFACE_CACHE_DIR"] == "/cache"
    assert "existingClaim" in refusal({"models": {"readOnly": True}})
    assert "acceptLicense" in refusal(values_of("cpu.yaml", merged(ACCEPTED, {"models": models})))


def test_a_volume_of_one_node_has_one_pod_at_a_time() -> None:
    models = {"claim": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}
    assert rendered({"models": models})["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert "replicaCount=1" in refusal({"models": models, "replicaCount": 2})
    assert "replicaCount=1" in refusal({"models": models, "autoscaling": {"enabled": True}})
    assert "exclude" in refusal({"models": models | {"existingClaim": "packs"}})


# ── running ────────────────────────────────────────────────────────────────────────────────────────────────────────


def containers(manifests: Manifests) -> Iterator[dict[str, Any]]:
    for spec in (pod(manifests), manifests["Pod"]["spec"]):
        yield from (*spec.get("initContainers", ()), *spec["containers"])


def test_containers_may_do_nothing_that_they_need_not(manifests: Manifests) -> None:
    for each in containers(manifests):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= each["resources"].keys()
    for spec in (pod(manifests), manifests["Pod"]["spec"]):
        assert spec["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001}.items()
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
    assert f"useradd --uid {pod(manifests)['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("grace", [None, 0, 60])
@pytest.mark.parametrize("is_left_out", [True, False])
def test_requests_in_flight_have_time_to_end(grace: int | None, is_left_out: bool) -> None:
    spec = pod(rendered({"settings": {} if grace is None and is_left_out else {"shutdown_grace_seconds": grace}}))
    pause = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    default = int(Settings.model_fields["shutdown_grace_seconds"].default)
    # 10 s after its grace period the service has ended in any case: ADR 13
    assert spec["terminationGracePeriodSeconds"] == pause + (default if grace is None else grace) + 10


def test_autoscaler_decides_the_number_of_replicas() -> None:
    assert rendered({"replicaCount": 3})["Deployment"]["spec"]["replicas"] == 3
    manifests = rendered({"autoscaling": {"enabled": True, "targetPercent": 60}})
    assert "replicas" not in manifests["Deployment"]["spec"]
    (metric,) = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric == {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
    }


def test_the_policy_lets_nothing_out_that_is_not_needed() -> None:
    policy = {"networkPolicy": {"enabled": True}}
    assert rendered(policy)["NetworkPolicy"]["spec"]["egress"] == []
    downloading = rendered(values_of("cpu.yaml", merged(ACCEPTED, policy)))["NetworkPolicy"]["spec"]["egress"]
    assert {port["port"] for rule in downloading for port in rule["ports"]} == {53, 443}
    port = container(rendered({}))["ports"][0]
    assert rendered(policy)["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]


def test_the_policy_lets_the_pack_be_downloaded_from_a_mirror_on_its_port() -> None:
    values = merged(ACCEPTED, {"networkPolicy": {"enabled": True}})
    for mirror, expected in (("https://packs.example:8443/packs", 8443), ("https://packs.example/a:1/b", 443)):
        manifests = rendered(values_of("cpu.yaml", merged(values, {"pack": {"mirror": mirror}})))
        assert manifests["NetworkPolicy"]["spec"]["egress"][-1] == {"ports": [{"port": expected, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"networkPolicy": {"enabled": True, "ingressFrom": None}}, "ingressFrom"),
        ({"resources": None}, "resources"),
        ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "app.kubernetes.io/name"),
        ({"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}}, "maxReplicas, which is 2"),
        ({"pack": {"name": "auraface", "acceptLicense": "auraface", "inImage": True}}, "leave one of them out"),
    ],
)
def test_values_that_would_do_something_else_than_they_say_are_refused(values: Values, name: str) -> None:
    """A null removes a default: without `ingressFrom`, the policy would let everybody in."""
    assert name in refusal(values)


def test_what_helm_test_runs_asks_the_service(service: Service) -> None:
    command = container_of_test(str(service.base_url))
    assert '"status"' in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    service.stop()
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def container_of_test(url: str, values: Values | None = None) -> list[str]:
    """What the pod of `helm test` runs, with another address."""
    manifests = rendered(values or {})
    (only,) = manifests["Pod"]["spec"]["containers"]
    name, port = manifests["Service"]["metadata"]["name"], manifests["Service"]["spec"]["ports"][0]["port"]
    (program,) = only["args"]
    ours = f"{url.partition(':')[0]}://{name}:{port}"
    assert f"{ours}/" in program
    return [sys.executable, "-c", program.replace(ours, url)]


# ── TLS ────────────────────────────────────────────────────────────────────────────────────────────────────────────

TLS: Values = {"tls": {"existingSecret": "face-tls"}}


def test_a_secret_makes_the_port_https_and_probes_use_it() -> None:
    manifests = rendered(merged(TLS, {"serviceMonitor": {"enabled": True}}))
    for kind in manifests.keys() - {"notes"}:
        accepts(manifests[kind])
    assert environment(manifests) == {
        "ARCFACE_PACK": "open",
        "ARCFACE_TLS_CERTIFICATE_FILE": "/tls/tls.crt",
        "ARCFACE_TLS_KEY_FILE": "/tls/tls.key",
    }
    probes = [value["httpGet"] for name, value in container(manifests).items() if name.endswith("Probe")]
    assert [probe["scheme"] for probe in probes] == ["HTTPS"] * 3
    assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container(manifests)["volumeMounts"]
    (volume,) = [each["secret"] for each in pod(manifests)["volumes"] if "secret" in each]
    assert volume["secretName"] == "face-tls"
    assert volume["defaultMode"] & 0o007 == 0
    assert manifests["Service"]["spec"]["ports"][0]["appProtocol"] == "https"
    (endpoint,) = manifests["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "face-arcface-api.photos.svc"
    assert "https://face-arcface-api.photos:5555" in manifests["notes"]["text"]


def test_callers_need_a_certificate_where_the_secret_has_an_authority() -> None:
    guarded = merged(TLS, {"tls": {"clientCaKey": "ca.crt"}})
    manifests = rendered(guarded)
    assert environment(manifests)["ARCFACE_TLS_CLIENT_CA_FILE"] == "/tls/ca.crt"
    assert "--cert client.pem" in manifests["notes"]["text"]
    assert "serviceMonitor.tlsConfig" in refusal(merged(guarded, {"serviceMonitor": {"enabled": True}}))
    assert "tls.existingSecret" in refusal({"tls": {"clientCaKey": "ca.crt"}})


def test_what_helm_test_runs_asks_a_service_with_tls(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path).issue()
    service = run_service(tiny_recogniser, tls_certificate_file=certificate, tls_key_file=key)
    command = container_of_test(str(service.base_url), TLS)
    assert '"status"' in subprocess.run(command, capture_output=True, text=True, check=True).stdout


# ── metrics ────────────────────────────────────────────────────────────────────────────────────────────────────────


def promtool(*command: str | Path) -> None:
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_of_the_chart_are_those_of_prometheus() -> None:
    assert (CHART / "files" / "rules.yml").read_bytes() == (PROMETHEUS / "rules.yml").read_bytes()


def test_rules_and_targets_name_the_same_job(everything: Manifests) -> None:
    (endpoint,) = everything["ServiceMonitor"]["spec"]["endpoints"]
    jobs = [each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"]
    text = str(everything["PrometheusRule"]["spec"])
    assert set(re.findall(r'job="([^"]*)"', text)) == set(jobs) == {everything["Deployment"]["metadata"]["name"]}
    assert (PROMETHEUS / "rules.yml").read_text().count('job="arcface"') == text.count("job=")


@needs_promtool
def test_rules_of_the_chart_pass_their_own_tests(tmp_path: Path) -> None:
    with helm.Chart.load(CHART) as chart:
        values = values_of("everything.yaml", {"prometheusRule": {"docsUrl": "https://docs.example/"}})
        texts = chart.render(values, name=RELEASE, namespace="photos")
    text = next(text for name, text in texts.items() if name.endswith("prometheus-rule.yaml"))
    groups = text.partition("\nspec:\n")[2]
    (tmp_path / "rules.yml").write_text("\n".join(line.removeprefix("  ") for line in groups.splitlines()))
    tests = (PROMETHEUS / "tests.yml").read_text().replace('job="arcface"', 'job="face-arcface-api"')
    tests = tests.replace("job: arcface", "job: face-arcface-api").replace(
        "docs/runbook", "https://docs.example/runbook"
    )
    (tmp_path / "tests.yml").write_text(tests)
    promtool("check", "rules", tmp_path / "rules.yml")
    promtool("test", "rules", tmp_path / "tests.yml")


def adapter_rule() -> dict[str, Any]:
    (rule,) = helm.values_from_yaml(ADAPTER.read_text())["rules"]["custom"]
    assert isinstance(rule, dict)
    return rule


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes(everything: Manifests) -> None:
    (metric,) = everything["HorizontalPodAutoscaler"]["spec"]["metrics"]
    rule = adapter_rule()
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    known = Metrics().registry.collect()
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in known}
    used = set(re.findall(r"arcface_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert used == {"arcface_lane_busy_seconds_total", "arcface_lanes"} <= names


@needs_promtool
def test_the_adapter_computes_how_busy_each_pod_is(tmp_path: Path) -> None:
    rule = adapter_rule()
    matchers = 'namespace="photos",pod=~"face-1|face-2"'
    query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
    query = query.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")
    assert "<<" not in query
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    series = []
    for number, busy in enumerate((90, 30, 120), 1):  # seconds a minute, on two lanes
        labels = f'{{namespace="photos", pod="face-{number}"}}'
        series += [(f"arcface_lane_busy_seconds_total{labels}", f"0+{busy}x10"), (f"arcface_lanes{labels}", "2x10")]
    lines = [
        "rule_files: []",
        "tests:",
        "  - interval: 1m",
        "    input_series:",
        *(f"      - {{series: '{name}', values: '{values}'}}" for name, values in series),
        "    promql_expr_test:",
        "      - eval_time: 10m",
        f"        expr: '{query}'",
        "        exp_samples:",
        "          - {labels: '{pod=\"face-1\"}', value: 0.75}",
        "          - {labels: '{pod=\"face-2\"}', value: 0.25}",
    ]
    (tmp_path / "tests.yml").write_text("\n".join(lines) + "\n")
    promtool("test", "rules", tmp_path / "tests.yml")
