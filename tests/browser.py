"""A real browser, without a window, that works as a person would: in Jupyter, and on any page."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from harness import BROWSER
from selenium import webdriver
from selenium.common import exceptions
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# What a page answers that is still being made: to be tried again.
_NOT_YET = (
    exceptions.NoSuchElementException,
    exceptions.StaleElementReferenceException,
    exceptions.ElementNotInteractableException,
    exceptions.ElementClickInterceptedException,
)
_PATIENCE = 120  # seconds
_ACCEPT = ".jp-Dialog .jp-mod-accept"


class Notebook:
    """A notebook of Jupyter Notebook, open in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def create(self, url: str) -> None:
        """Opens Jupyter at its address, and a new notebook from its menu, with the cursor in its cell."""
        for _ in range(3):  # on a busy machine the page may give up on a part of itself
            self._driver.get(url)
            with suppress(exceptions.TimeoutException):
                self._click(By.XPATH, "//*[contains(@class, 'lm-MenuBar-item')][.//div[text()='New']]", 60)
                break
        self._click(
            By.XPATH, "//li[contains(@class, 'lm-Menu-item')][.//div[starts-with(text(), 'Python 3')]]"
        )
        self._until(lambda: len(self._driver.window_handles) == 2)
        self._driver.switch_to.window(self._driver.window_handles[1])
        self._until_idle()
        self._click(By.CSS_SELECTOR, ".jp-Cell .cm-content")

    def run(self, *lines: str) -> str:
        """Types into the cell that has the cursor, runs it and gives what it shows; the next one follows."""
        before = len(self._outputs())
        self._keys(Keys.ENTER.join(lines))
        self._keys(Keys.SHIFT, Keys.ENTER)
        self._until(lambda: len(self._outputs()) > before or self._questions())
        if self._questions():  # where a busy machine was slow with the kernel: which one it is to be
            self._click(By.CSS_SELECTOR, _ACCEPT)
            self._until_idle()
            self._click(By.CSS_SELECTOR, ".jp-Cell.jp-mod-active .cm-content")
            self._keys(Keys.SHIFT, Keys.ENTER)
            self._until(lambda: len(self._outputs()) > before)
        self._until_idle()
        return self._outputs()[-1].text

    def save(self) -> None:
        self._keys(Keys.CONTROL, "s")

    def picture(self, path: str) -> None:
        self._driver.save_screenshot(path)

    def _outputs(self) -> list[WebElement]:
        return self._driver.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output")

    def _questions(self) -> list[WebElement]:
        return self._driver.find_elements(By.CSS_SELECTOR, _ACCEPT)

    def _keys(self, *keys: str) -> None:
        self._driver.switch_to.active_element.send_keys(*keys)

    def _click(self, by: str, what: str, seconds: float = _PATIENCE) -> None:
        def click() -> bool:
            self._driver.find_element(by, what).click()
            return True

        self._until(click, seconds)

    def _until_idle(self) -> None:
        idle = ".jp-Notebook-ExecutionIndicator[data-status=idle]"

        def waits() -> bool:
            for button in self._questions():  # on a busy machine: a theme that came late, which kernel
                button.click()
            return bool(self._driver.find_elements(By.CSS_SELECTOR, idle))

        self._until(waits)

    def _until(self, condition: Callable[[], object], seconds: float = _PATIENCE) -> None:
        try:
            WebDriverWait(self._driver, seconds, 0.1, _NOT_YET).until(lambda _: condition())
        except exceptions.TimeoutException as error:
            error.msg = f"the page shows {self._text()!r}"
            raise

    def _text(self) -> str:
        with suppress(*_NOT_YET):
            return self._driver.find_element(By.TAG_NAME, "body").text[:500]
        return ""


@contextmanager
def notebook() -> Iterator[Notebook]:
    with browsing("900,640") as driver:
        yield Notebook(driver)


@contextmanager
def browsing(size: str) -> Iterator[webdriver.Chrome]:
    """Yields a browser whose window has this size, as in 900,640."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # As root, and where /dev/shm is small.
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={size}"):
        options.add_argument(word)
    # Named, as selenium would look for a newer one in the network.
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
