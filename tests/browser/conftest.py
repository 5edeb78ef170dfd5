"""A headless Chromium that opens pages of an atlas; where there is none, these tests are skipped."""

import shutil

import pytest

from browser_cases import Page
from tokenspace.atlas.atlas import Atlas
from tokenspace.atlas.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
    "--window-size=1280,800",
    "--disable-background-networking",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium for all tests, with what it downloads in `browser.downloads`."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("Chromium and its driver are not installed: `make test-browser` installs them")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in _SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    driver.downloads = tmp_path_factory.mktemp("downloads")
    behaviour = {"behavior": "allow", "downloadPath": str(driver.downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def atlas_of_run(trained):
    """The atlas of a small run."""
    return Atlas.of(trained)


@pytest.fixture(scope="session")
def run_page(atlas_of_run, tmp_path_factory):
    """Its page."""
    path = tmp_path_factory.mktemp("atlas") / "run.html"
    atlas_of_run.save(path)
    return path


@pytest.fixture
def page(browser, run_page):
    """The page of a small run, freshly opened."""
    return Page(browser, run_page)


@pytest.fixture
def open_page(browser, tmp_path):
    """Write an atlas and open it."""

    def write(data):
        path = tmp_path / "atlas.html"
        write_page(data, path)
        return Page(browser, path)

    return write
